"""The pages of producers, events, refusals and webhooks."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from chassis.errors import SartorError
from chassis.peers import Peer
from chassis.routes import Router
from console.answers import KeyAnswer, Listing
from console.paging import Listed, cursor
from console.sessions import Session
from console.web import SEE_OTHER, Web
from schemas import PUBLISHABLE

EVENTS_SHOWN = 20
REFUSED_SHOWN = 10
WEBHOOKS_SHOWN = 50
DELIVERIES_SHOWN = 20
KEYS_LOOKED_AT = 100

WEBHOOKS = "/v1/webhook_endpoints"
WEBHOOK = "/v1/webhook_endpoints/{}"
EMPTY = {"name": "", "url": "", "types": "fine_tuning.job.succeeded, fine_tuning.job.failed, model.promoted.v1"}
"""The form for a webhook before anybody wrote into it."""


def event_routes(web: Web, accounts: Peer, gateway: Peer) -> Router:
    """Events and webhooks."""
    router = Router(prefix="/events", include_in_schema=False)
    _add_events(router, web, accounts, gateway)
    _add_webhooks(router, web, gateway)
    return router


def _add_events(router: Router, web: Web, accounts: Peer, gateway: Peer) -> None:
    async def producers(session: Session) -> list[KeyAnswer]:
        if not session.principal.may("organization:read"):
            return []
        keys: Listing[KeyAnswer] = await accounts.get(
            "/v1/organization/keys", params={"limit": KEYS_LOOKED_AT}, **session.who
        )
        return [key for key in keys["data"] if key.get("event_types") and not key["revoked_at"]]

    async def shown(
        session: Session,
        after: str | None = None,
        *,
        problem: str = "",
        made: str = "",
        secret: str = "",
        asked: Mapping[str, str] = EMPTY,
        status: int = 200,
    ) -> Response:
        wanted = {**cursor(EVENTS_SHOWN, after), "order": "desc"}
        found = await gateway.get("/v1/events", params=wanted, **session.who)
        rows = [{**one, "event": one["id"], "id": one["cursor"]} for one in found["data"]]
        refused = await gateway.get("/v1/events/refused", params={"limit": REFUSED_SHOWN}, **session.who)
        webhooks = await gateway.get(WEBHOOKS, params={"limit": WEBHOOKS_SHOWN}, **session.who)
        types = await gateway.get("/v1/webhook_event_types", **session.who)
        return web.page(
            "operate/events",
            session,
            events=Listed(rows, found["has_more"], after),
            producers=await producers(session),
            refused=refused["data"],
            webhooks=webhooks["data"],
            types=types["data"],
            publishable=list(PUBLISHABLE),
            may_make_keys=session.principal.may("organization:write") and session.principal.may("events:publish"),
            may_change=session.principal.may("events:write"),
            problem=problem,
            made=made,
            secret=secret,
            asked=asked,
            status=status,
        )

    @router.get("")
    async def events_page(request: Request, after: str | None = None) -> Response:
        return await shown(await web.session(request), after)

    @router.post("/producers")
    async def make_producer(request: Request) -> Response:
        """A key for a service outside, which may publish the chosen type, and read."""
        session = await web.session(request)
        fields = await web.form(request, session)
        asked = {
            "name": fields.get("name") or "producer",
            "role": "engineer",
            "scopes": ["events:publish", "events:read"],
            "event_types": [one for one in PUBLISHABLE if one in fields],
        }
        try:
            made = await accounts.post("/v1/organization/keys", json=asked, **session.who)
        except SartorError as error:
            return await shown(session, problem=error.message, status=error.status)
        return await shown(session, made=made["api_key"])

    @router.post("/webhooks")
    async def make_webhook(request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        types = [name.strip() for name in fields.get("types", "").split(",") if name.strip()]
        asked = {"name": fields.get("name") or "webhook", "url": fields.get("url", ""), "event_types": types}
        try:
            made = await gateway.post(WEBHOOKS, json=asked, **session.who)
        except SartorError as error:
            return await shown(session, problem=error.message, asked=EMPTY | fields, status=error.status)
        return await shown(session, secret=made["signing_secret"])


def _add_webhooks(router: Router, web: Web, gateway: Peer) -> None:
    async def shown(
        session: Session,
        endpoint_id: str,
        after: str | None = None,
        *,
        problem: str = "",
        done: str = "",
        secret: str = "",
        status: int = 200,
    ) -> Response:
        endpoint = await gateway.get(WEBHOOK, endpoint_id, **session.who)
        found = await gateway.get(
            f"{WEBHOOK}/deliveries", endpoint_id, params=cursor(DELIVERIES_SHOWN, after), **session.who
        )
        return web.page(
            "operate/webhook",
            session,
            endpoint=endpoint,
            deliveries=Listed(found["data"], found["has_more"], after),
            may_change=session.principal.may("events:write"),
            problem=problem,
            done=done,
            secret=secret,
            status=status,
        )

    @router.get("/webhooks/{endpoint_id}")
    async def webhook_page(endpoint_id: str, request: Request, after: str | None = None) -> Response:
        return await shown(await web.session(request), endpoint_id, after)

    @router.post("/webhooks/{endpoint_id}")
    async def change_webhook(endpoint_id: str, request: Request) -> Response:
        """Send a sample, make another secret, turn the endpoint on or delete it, by the button that was pressed."""
        session = await web.session(request)
        fields = await web.form(request, session)
        who = session.who
        try:
            if "delete" in fields:
                await gateway.request("DELETE", WEBHOOK, endpoint_id, **who)
                return RedirectResponse("/events", SEE_OTHER)
            if "rotate" in fields:
                keep = {"keep_old_secret_active_for_24_hours": True}
                made = await gateway.post(f"{WEBHOOK}/rotate_secret", endpoint_id, json=keep, **who)
                return await shown(session, endpoint_id, secret=made["signing_secret"])
            if "sample" in fields:
                sample = {"event_type": fields["sample"]}
                tried = await gateway.post(f"{WEBHOOK}/test", endpoint_id, json=sample, **who)
                return await shown(session, endpoint_id, done=f"A sample was answered {tried['status_code']}.")
            await gateway.post(WEBHOOK, endpoint_id, json={"name": fields.get("name")}, **who)
        except SartorError as error:
            return await shown(session, endpoint_id, problem=error.message, status=error.status)
        return await shown(session, endpoint_id, done="It is on again.")

    @router.post("/webhooks/{endpoint_id}/deliveries/{delivery_id}/replay")
    async def replay_delivery(endpoint_id: str, delivery_id: str, request: Request) -> Response:
        session = await web.session(request)
        await web.form(request, session)
        try:
            await gateway.post(f"{WEBHOOK}/deliveries/{{}}/replay", endpoint_id, delivery_id, **session.who)
        except SartorError as error:
            return await shown(session, endpoint_id, problem=error.message, status=error.status)
        return await shown(session, endpoint_id, done="It is on its way again.")
