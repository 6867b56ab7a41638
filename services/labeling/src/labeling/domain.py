"""Label projects: what is asked, which answers count, and when they are published."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from chassis.errors import Conflict, Invalid, NotFound
from chassis.text import quoted, shown
from eventbus import Aggregate
from schemas import LabelsDeleted, LabelsPublished, ObjectRef

LONGEST_ANSWER = 20_000
LONGEST_LABEL = 500
MOST_LABELS = 1_000


class Task(BaseModel):
    """One text to be answered."""

    id: str
    project_id: str
    tenant_id: str
    position: int
    text: str
    answer: str | None = None
    former_answer: str | None = None
    answered_by: str | None = None
    answered_at: int | None = None
    holder: str = ""
    held_until_ms: int = 0


class Project(Aggregate):
    """One thing people are asked about a set of texts: `open -> deleted -> purged`, once its tasks are gone."""

    created_at: int
    state: Literal["open", "deleted", "purged"] = "open"
    name: str
    kind: Literal["classification", "free_text"] = "free_text"
    labels: list[str] = Field(default_factory=list)
    instructions: str = ""
    file_id: str | None = None
    tasks: int
    left_out: int = 0
    publications: int = 0
    published_sha256: str = ""

    def checked_answer(self, answer: str) -> str:
        """An answer as it is stored.

        Raises:
            Invalid: it is empty, too long, or not one of the project's labels.
        """
        answer = answer.strip()
        if not 1 <= len(answer) <= LONGEST_ANSWER:
            raise Invalid(f"answer: must have 1 to {LONGEST_ANSWER} characters.", param="answer")
        if self.labels and answer not in self.labels:
            raise Invalid(f"answer: {quoted(answer)} is not one of {shown(', '.join(self.labels))}.", param="answer")
        return answer

    def change(self, labels: list[str] | None, instructions: str | None) -> None:
        """Change what is asked.

        Raises:
            NotFound: it was deleted.
        """
        self._must_be_open()
        if labels is not None:
            self.labels = list(dict.fromkeys(label.strip() for label in labels if label.strip()))
            self.kind = "classification" if self.labels else "free_text"
        if instructions is not None:
            self.instructions = instructions

    def expect_answers(self, answered: int) -> None:
        """Let it be published.

        Raises:
            Conflict: there is no answer.
        """
        if answered < 1:
            raise Conflict("No task has an answer yet; there is nothing to publish.", code="nothing_labelled")

    def publish(self, records: ObjectRef, rows: int, labels: list[str]) -> None:
        """The answers given so far become a dataset version; the same ones again are the same publication.

        Raises:
            NotFound: it was deleted.
            Conflict: the answers were read for other labels than those asked for now.
        """
        self._must_be_open()
        if labels != self.labels:
            raise Conflict("The labels were changed meanwhile; publish again.", code="labels_changed")
        if records.sha256 == self.published_sha256:
            return
        self.publications += 1
        self.published_sha256 = records.sha256
        self.record(
            LabelsPublished(
                tenant_id=self.tenant_id,
                project_id=self.id,
                publication=self.publications,
                file_id=self.file_id,
                name=self.name,
                rows=rows,
                records=records,
            )
        )

    def delete(self) -> None:
        """Nobody finds it any more, and its tasks and answers are about to go; doing it again changes nothing."""
        if self.state == "open":
            self.state = "deleted"
            self.record(LabelsDeleted(tenant_id=self.tenant_id, project_id=self.id, file_id=self.file_id))

    def purge(self) -> None:
        """Its tasks and answers are gone, and what it said."""
        if self.state == "deleted":
            self.state, self.name, self.labels, self.instructions = "purged", "", [], ""

    def purge_again(self) -> None:
        """Tasks or answers may have been written after they were removed."""
        if self.state == "purged":
            self.state = "deleted"

    def _must_be_open(self) -> None:
        if self.state != "open":
            raise NotFound(f"No such project: {quoted(self.id)}.")
