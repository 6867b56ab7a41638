"""The HTTP routes of labeling, `/v1/labeling`: a labeler sees the task and nothing of the data store behind it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from chassis.auth import Principal, require
from chassis.bodies import Body
from chassis.http import Page, page
from chassis.routes import Router
from labeling.domain import LONGEST_ANSWER, LONGEST_LABEL, MOST_LABELS, Project
from labeling.store import Labels
from labeling.use_cases import NewProject, Projects
from labeling.views import (
    ChangedProject,
    ProjectDeleted,
    ProjectView,
    ReadProject,
    ReadTask,
    TaskView,
    project_view,
    task_view,
)

Reads = Annotated[Principal, require("labeling:read")]
Writes = Annotated[Principal, require("labeling:write")]
Annotates = Annotated[Principal, require("labeling:annotate")]
Sees = Annotated[Principal, require("labeling:read", "labeling:annotate")]
Limit = Annotated[int, Query(ge=1, le=100)]
LONGEST_TEXT = 100_000
MOST_ROWS = 100_000
"""Whatever `labeling_rows` allows."""


Label = Annotated[str, Field(max_length=LONGEST_LABEL)]
After = Annotated[str | None, Query(max_length=100)]


class ProjectAsked(Body):
    """A project to be made."""

    name: str = Field(min_length=1, max_length=200)
    rows: list[Annotated[str, Field(max_length=LONGEST_TEXT)]] = Field(min_length=1, max_length=MOST_ROWS)
    labels: list[Label] = Field(default_factory=list, max_length=MOST_LABELS)
    instructions: str = Field("", max_length=2000)


class ProjectChange(Body):
    """What to change about a project."""

    labels: list[Label] | None = Field(None, max_length=MOST_LABELS)
    instructions: str | None = Field(None, max_length=2000)


class Answer(Body):
    """An answer to a task."""

    answer: str = Field(max_length=LONGEST_ANSWER)


def routes(labels: Labels, projects: Projects) -> Router:
    """Projects, tasks, publication, feedback."""
    router = Router(prefix="/v1/labeling", tags=["labeling"])

    async def views(principal: Principal, found: list[Project]) -> list[ReadProject | ProjectView]:
        counts = await labels.counts(principal.tenant_id, [project.id for project in found])
        return [project_view(project, counts[project.id], principal) for project in found]

    async def view(project: Project, principal: Principal) -> ReadProject | ProjectView:
        [shown] = await views(principal, [project])
        return shown

    @router.post("/projects")
    async def create_project(asked: ProjectAsked, principal: Writes) -> ReadProject | ProjectView:
        wanted = NewProject(asked.name, asked.rows, asked.labels, asked.instructions)
        return await view(await projects.create(principal.tenant_id, wanted), principal)

    @router.get("/projects")
    async def list_projects(principal: Sees, limit: Limit = 20, after: After = None) -> Page:
        found = await labels.projects_page(principal.tenant_id, limit=limit + 1, after=after)
        return page(await views(principal, found), limit=limit)

    @router.get("/projects/{project_id}")
    async def retrieve_project(project_id: str, principal: Sees) -> ReadProject | ProjectView:
        return await view(await labels.project(principal.tenant_id, project_id), principal)

    @router.patch("/projects/{project_id}")
    async def change_project(project_id: str, change: ProjectChange, principal: Writes) -> ChangedProject:
        changed, reopened = await projects.change(principal.tenant_id, project_id, change.labels, change.instructions)
        shown = await view(changed, principal)
        return ChangedProject(**shown.model_dump(), reopened=reopened)

    @router.delete("/projects/{project_id}")
    async def delete_project(project_id: str, principal: Writes) -> ProjectDeleted:
        await projects.delete(principal.tenant_id, project_id)
        return ProjectDeleted(id=project_id)

    @router.post("/projects/{project_id}/publish")
    async def publish_project(project_id: str, principal: Writes) -> ReadProject | ProjectView:
        return await view(await projects.publish(principal.tenant_id, project_id), principal)

    @router.get("/projects/{project_id}/tasks")
    async def list_tasks(project_id: str, principal: Reads, limit: Limit = 20, after: After = None) -> Page:
        project = await labels.project(principal.tenant_id, project_id)
        tasks = await labels.tasks_page(project, limit=limit + 1, after=after)
        return page([task_view(task, principal) for task in tasks], limit=limit)

    @router.post("/projects/{project_id}/next", response_model=None)
    async def next_task(project_id: str, principal: Annotates) -> ReadTask | TaskView | Response:
        project = await labels.project(principal.tenant_id, project_id)
        task = await projects.next_task(project, _person(principal))
        return task_view(task, principal) if task else Response(status_code=204)

    @router.post("/projects/{project_id}/tasks/{task_id}")
    async def submit_answer(project_id: str, task_id: str, given: Answer, principal: Annotates) -> ReadTask | TaskView:
        project = await labels.project(principal.tenant_id, project_id)
        return task_view(await projects.submit(project, task_id, _person(principal), given.answer), principal)

    @router.post("/projects/{project_id}/tasks/{task_id}/skip")
    async def skip_task(project_id: str, task_id: str, principal: Annotates) -> Response:
        project = await labels.project(principal.tenant_id, project_id)
        await projects.skip(project, task_id, _person(principal))
        return Response(status_code=204)

    @router.get("/feedback")
    async def list_feedback(principal: Reads, limit: Limit = 20, after: After = None) -> Page:
        return page(await labels.feedback(principal.tenant_id, limit=limit + 1, after=after), limit=limit)

    return router


def _person(principal: Principal) -> str:
    return principal.user_id or principal.key_id
