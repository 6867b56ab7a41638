"""The labeling pages: projects and ratings, then one task, its answer, the next one."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from chassis.peers import Peer
from chassis.routes import Router
from console.answers import Listing, RatingAnswer
from console.paging import Listed, cursor
from console.web import SEE_OTHER, Web

PROJECTS_SHOWN = 24
RATINGS_SHOWN = 100


def label_routes(web: Web, labeling: Peer) -> Router:
    """Projects and their tasks."""
    router = Router(prefix="/labeling", include_in_schema=False)

    @router.get("")
    async def projects_page(request: Request, after: str | None = None) -> Response:
        session = await web.session(request)
        who = session.who
        projects = await labeling.get("/v1/labeling/projects", params=cursor(PROJECTS_SHOWN, after), **who)
        listed = Listed(projects["data"], projects["has_more"], after)
        feedback: Listing[RatingAnswer] = {"data": [], "has_more": False}
        if session.principal.may("labeling:read"):  # labelers see their tasks and nothing else
            feedback = await labeling.get("/v1/labeling/feedback", params={"limit": RATINGS_SHOWN}, **who)
        return web.page("labeling/projects", session, projects=listed, feedback=feedback)

    @router.get("/{project_id}")
    async def task_page(project_id: str, request: Request) -> Response:
        session = await web.session(request)
        who = session.who
        project = await labeling.get("/v1/labeling/projects/{}", project_id, **who)
        task = await labeling.post("/v1/labeling/projects/{}/next", project_id, **who)
        return web.page("labeling/task", session, project=project, task=task)

    @router.post("/{project_id}/labels")
    async def change_labels(project_id: str, request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        who = session.who
        body = {"labels": fields.get("labels", "").split(","), "instructions": fields.get("instructions", "")}
        await labeling.request("PATCH", "/v1/labeling/projects/{}", project_id, json=body, **who)
        return RedirectResponse(f"/labeling/{project_id}", SEE_OTHER)

    @router.post("/{project_id}/publish")
    async def publish(project_id: str, request: Request) -> Response:
        session = await web.session(request)
        await web.form(request, session)
        who = session.who
        await labeling.post("/v1/labeling/projects/{}/publish", project_id, **who)
        return RedirectResponse(f"/labeling/{project_id}", SEE_OTHER)

    @router.post("/{project_id}/{task_id}")
    async def submit(project_id: str, task_id: str, request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        who = session.who
        if "skip" in fields:
            await labeling.post("/v1/labeling/projects/{}/tasks/{}/skip", project_id, task_id, **who)
        else:
            body = {"answer": fields.get("answer", "")}
            await labeling.post("/v1/labeling/projects/{}/tasks/{}", project_id, task_id, json=body, **who)
        return RedirectResponse(f"/labeling/{project_id}", SEE_OTHER)

    return router
