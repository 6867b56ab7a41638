"""How projects and tasks are shown: to those who only annotate less than to those who read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel

from chassis.auth import Principal
from labeling.domain import Project, Task


class TaskView(BaseModel):
    """A task."""

    object: Literal["labeling.task"] = "labeling.task"
    id: str
    text: str
    answer: str | None
    answered_by: str | None
    answered_at: int | None


class ReadTask(TaskView):
    """A task, with what somebody answered before."""

    former_answer: str | None


class ProjectView(BaseModel):
    """A project."""

    object: Literal["labeling.project"] = "labeling.project"
    id: str
    created_at: int
    name: str
    kind: Literal["classification", "free_text"]
    labels: list[str]
    instructions: str
    total: int
    answered: int
    publications: int


class ReadProject(ProjectView):
    """A project, with where its texts come from."""

    file_id: str | None
    left_out: int


class ChangedProject(ReadProject):
    """A project that was changed, and how many of its tasks are to be answered again."""

    reopened: int


class ProjectDeleted(BaseModel):
    """A project that was deleted."""

    object: Literal["labeling.project"] = "labeling.project"
    id: str
    deleted: bool = True


def task_view(task: Task, principal: Principal) -> ReadTask | TaskView:
    """A task as shown."""
    kind = ReadTask if principal.may("labeling:read") else TaskView
    return kind(**task.model_dump(include=set(kind.model_fields) & set(Task.model_fields)))


def project_view(project: Project, counts: Mapping[str, int], principal: Principal) -> ReadProject | ProjectView:
    """A project as shown, with how many tasks it has and how many are answered."""
    kind = ReadProject if principal.may("labeling:read") else ProjectView
    return kind(**project.model_dump(include=set(kind.model_fields) & set(Project.model_fields)), **counts)
