"""The HTTP routes of labeling, `/v1/labeling`: a labeler sees the task and nothing of the data store behind it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from chassis.auth import Principal, require
from chassis.http import Page, page
from labeling.domain import Project
from labeling.store import Labels, Task
from labeling.use_cases import NewProject, Projects

Reads = Annotated[Principal, require("labeling:read")]
Writes = Annotated[Principal, require("labeling:write")]
Annotates = Annotated[Principal, require("labeling:annotate")]
Sees = Annotated[Principal, require("labeling:read", "labeling:annotate")]
SHOWN_TO_LABELERS = {"id", "created_at", "name", "kind", "labels", "instructions"}
SHOWN = {"id", "created_at", "name", "kind", "labels", "instructions", "file_id", "left_out"}
Limit = Annotated[int, Query(ge=1, le=100)]


class ProjectAsked(BaseModel):
    """A project to be made."""

    name: str = Field(min_length=1, max_length=200)
    rows: list[str] = Field(min_length=1)
    labels: list[str] = Field(default_factory=list)
    instructions: str = Field("", max_length=2000)


class ProjectChange(BaseModel):
    """What to change about a project."""

    labels: list[str] | None = None
    instructions: str | None = Field(None, max_length=2000)


class Answer(BaseModel):
    """An answer to a task."""

    answer: str


def task_view(task: Task) -> dict[str, Any]:
    """A task as shown."""
    shown = task.model_dump(include={"id", "text", "answer", "answered_by", "answered_at"})
    return {"object": "labeling.task", **shown}


def routes(labels: Labels, projects: Projects) -> APIRouter:
    """Projects, tasks, publication, feedback."""
    router = APIRouter(prefix="/v1/labeling", tags=["labeling"])

    async def view(project: Project, principal: Principal) -> dict[str, Any]:
        shown = project.model_dump(include=SHOWN if principal.may("labeling:read") else SHOWN_TO_LABELERS)
        counts = await labels.counts(project)
        return {"object": "labeling.project", **shown, **counts, "publications": project.publications}

    @router.post("/projects")
    async def create_project(asked: ProjectAsked, principal: Writes) -> dict[str, Any]:
        wanted = NewProject(asked.name, asked.rows, asked.labels, asked.instructions)
        return await view(await projects.create(principal.tenant_id, wanted), principal)

    @router.get("/projects")
    async def list_projects(principal: Sees, limit: Limit = 20, after: str | None = None) -> Page:
        found = await labels.projects.find(principal.tenant_id, limit=limit + 1, after=after)
        return page([await view(project, principal) for project in found], limit=limit)

    @router.get("/projects/{project_id}")
    async def retrieve_project(project_id: str, principal: Sees) -> dict[str, Any]:
        return await view(await labels.projects.get(principal.tenant_id, project_id), principal)

    @router.patch("/projects/{project_id}")
    async def change_project(project_id: str, change: ProjectChange, principal: Writes) -> dict[str, Any]:
        changed = await labels.projects.update(
            principal.tenant_id, project_id, lambda it: it.change(change.labels, change.instructions)
        )
        return await view(changed, principal)

    @router.post("/projects/{project_id}/publish")
    async def publish_project(project_id: str, principal: Writes) -> dict[str, Any]:
        return await view(await projects.publish(principal.tenant_id, project_id), principal)

    @router.get("/projects/{project_id}/tasks")
    async def list_tasks(project_id: str, principal: Reads, limit: Limit = 20, after: str | None = None) -> Page:
        project = await labels.projects.get(principal.tenant_id, project_id)
        return page([task_view(task) for task in await labels.page(project, limit=limit + 1, after=after)], limit=limit)

    @router.post("/projects/{project_id}/next", response_model=None)
    async def next_task(project_id: str, principal: Annotates) -> dict[str, Any] | Response:
        project = await labels.projects.get(principal.tenant_id, project_id)
        task = await projects.next_task(project, _person(principal))
        return task_view(task) if task else Response(status_code=204)

    @router.post("/projects/{project_id}/tasks/{task_id}")
    async def submit_answer(project_id: str, task_id: str, given: Answer, principal: Annotates) -> dict[str, Any]:
        project = await labels.projects.get(principal.tenant_id, project_id)
        return task_view(await projects.submit(project, task_id, _person(principal), given.answer))

    @router.post("/projects/{project_id}/tasks/{task_id}/skip")
    async def skip_task(project_id: str, task_id: str, principal: Annotates) -> Response:
        project = await labels.projects.get(principal.tenant_id, project_id)
        await labels.skip(project, task_id, _person(principal))
        return Response(status_code=204)

    @router.get("/feedback")
    async def list_feedback(principal: Reads, limit: Limit = 20) -> Page:
        return page(await labels.feedback(principal.tenant_id, limit=limit + 1), limit=limit)

    return router


def _person(principal: Principal) -> str:
    return principal.user_id or principal.key_id
