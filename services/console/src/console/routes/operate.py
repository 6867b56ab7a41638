"""The pages by which an organization is run (people, API keys, policy, audit trail), and that of one's own account."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from chassis.errors import SartorError
from chassis.peers import Peer
from chassis.roles import ROLES, expand
from chassis.routes import Router
from console.answers import InvitedAnswer
from console.paging import Listed, cursor
from console.sessions import Person, Session
from console.web import SEE_OTHER, Web, address_of

PEOPLE_SHOWN = 50
KEYS_SHOWN = 50
LINES_SHOWN = 50
BASES_SHOWN = 100
VERIFY_SECONDS = 300.0
"""A trail is read from its first line."""


def operate_routes(web: Web, accounts: Peer, registry: Peer) -> Router:
    """People, keys, policy, audit, one's own password."""
    router = Router(include_in_schema=False)
    _add_people(router, web, accounts)
    _add_keys(router, web, accounts)
    _add_policy(router, web, accounts, registry)
    _add_account(router, web, accounts)

    @router.get("/audit")
    async def audit_page(request: Request, after: str | None = None, verify: bool = False) -> Response:
        session = await web.session(request)
        params = cursor(LINES_SHOWN, after) | ({"verify": "true"} if verify else {})
        deadline = VERIFY_SECONDS if verify else None
        found = await accounts.get("/v1/organization/audit_logs", params=params, timeout=deadline, **session.who)
        names = await _names(session)
        lines = Listed(found["data"], found["has_more"], after)
        return web.page("operate/audit", session, lines=lines, intact=found["intact"], verified=verify, names=names)

    async def _names(session: Session) -> dict[str, str]:
        """Addresses of the newest people and names of the newest keys, by their ids."""
        if not session.principal.may("organization:read"):
            return {}
        people = await accounts.get("/v1/organization/users", params={"limit": 100}, **session.who)
        keys = await accounts.get("/v1/organization/keys", params={"limit": 100}, **session.who)
        return {one["id"]: one["email"] for one in people["data"]} | {one["id"]: one["name"] for one in keys["data"]}

    return router


def _add_people(router: Router, web: Web, accounts: Peer) -> None:
    async def shown(
        session: Session,
        after: str | None = None,
        *,
        problem: str = "",
        email: str = "",
        invited: InvitedAnswer | None = None,
        status: int = 200,
    ) -> Response:
        found = await accounts.get("/v1/organization/users", params=cursor(PEOPLE_SHOWN, after), **session.who)
        people = Listed(found["data"], found["has_more"], after)
        return web.page(
            "operate/people",
            session,
            people=people,
            roles=_grantable(session),
            url=web.public_url,
            may_change=session.principal.may("organization:write"),
            problem=problem,
            email=email,
            invited=invited,
            status=status,
        )

    @router.get("/people")
    async def people_page(request: Request, after: str | None = None) -> Response:
        return await shown(await web.session(request), after)

    @router.post("/people")
    async def invite(request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        asked = {"email": fields.get("email", ""), "role": fields.get("role", "")}
        try:
            invited = await accounts.post("/v1/organization/users", json=asked, **session.who)
        except SartorError as error:
            return await shown(session, problem=error.message, email=asked["email"], status=error.status)
        return await shown(session, invited=invited)

    @router.post("/people/{user_id}")
    async def change(user_id: str, request: Request) -> Response:
        """Change a role, shut somebody out or in, or make a link for a new password, by the button that was pressed."""
        session = await web.session(request)
        fields = await web.form(request, session)
        place = "/v1/organization/users/{}"
        try:
            if "withdraw" in fields:
                await accounts.request("DELETE", place, user_id, **session.who)
                return RedirectResponse("/people", SEE_OTHER)
            if "reset" in fields:
                invited = await accounts.post(f"{place}/reset_password", user_id, **session.who)
                return await shown(session, invited=invited)
            wanted = (
                {"disabled": fields["disabled"] == "true"} if "disabled" in fields else {"role": fields.get("role")}
            )
            await accounts.request("PATCH", place, user_id, json=wanted, **session.who)
        except SartorError as error:
            return await shown(session, problem=error.message, status=error.status)
        return RedirectResponse("/people", SEE_OTHER)


def _grantable(session: Session) -> list[str]:
    """The roles that somebody may give: nobody gives away more than they have."""
    may = session.principal.may
    return [role for role in ROLES if role != "operator" and all(map(may, expand(ROLES[role])))]


def _add_keys(router: Router, web: Web, accounts: Peer) -> None:
    async def shown(
        session: Session,
        after: str | None = None,
        *,
        made: str = "",
        problem: str = "",
        wanted: str = "",
        status: int = 200,
    ) -> Response:
        found = await accounts.get("/v1/organization/keys", params=cursor(KEYS_SHOWN, after), **session.who)
        keys = Listed(found["data"], found["has_more"], after)
        may_change = session.principal.may("organization:write")
        return web.page(
            "operate/keys",
            session,
            keys=keys,
            roles=_grantable(session),
            may_change=may_change,
            made=made,
            problem=problem,
            wanted=wanted,
            status=status,
        )

    @router.get("/keys")
    async def keys_page(request: Request, after: str | None = None) -> Response:
        return await shown(await web.session(request), after)

    @router.post("/keys")
    async def make_key(request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        asked = {"name": fields.get("name") or "key", "role": fields.get("role") or "engineer"}
        try:
            made = await accounts.post("/v1/organization/keys", json=asked, **session.who)
        except SartorError as error:
            return await shown(session, problem=error.message, wanted=asked["name"], status=error.status)
        return await shown(session, made=made["api_key"])

    @router.post("/keys/{key_id}/rotate")
    async def rotate_key(key_id: str, request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        grace = fields.get("grace", "")
        asked = {"grace_seconds": int(grace)} if grace.isascii() and grace.isdigit() else {}
        try:
            rotated = await accounts.post("/v1/organization/keys/{}/rotate", key_id, json=asked, **session.who)
        except SartorError as error:
            return await shown(session, problem=error.message, status=error.status)
        return await shown(session, made=rotated["api_key"])

    @router.post("/keys/{key_id}/revoke")
    async def revoke_key(key_id: str, request: Request) -> Response:
        session = await web.session(request)
        await web.form(request, session)
        try:
            await accounts.request("DELETE", "/v1/organization/keys/{}", key_id, **session.who)
        except SartorError as error:
            return await shown(session, problem=error.message, status=error.status)
        return RedirectResponse("/keys", SEE_OTHER)


def _add_policy(router: Router, web: Web, accounts: Peer, registry: Peer) -> None:
    async def shown(session: Session, *, saved: bool = False, problem: str = "", status: int = 200) -> Response:
        organization = await accounts.get("/v1/organization", **session.who)
        bases = await registry.get("/v1/registry/base_models", params={"limit": BASES_SHOWN}, **session.who)
        return web.page(
            "operate/policy",
            session,
            organization=organization,
            bases=[base["id"] for base in bases["data"] if base.get("fine_tuning", True)],
            may_change=session.principal.may("organization:write"),
            saved=saved,
            problem=problem,
            status=status,
        )

    @router.get("/policy")
    async def policy_page(request: Request, saved: bool = False) -> Response:
        return await shown(await web.session(request), saved=saved)

    @router.post("/policy")
    async def change_policy(request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        change = {
            "tune_on_upload": fields.get("tune_on_upload") == "true",
            "gate": fields.get("gate", ""),
            "base_model": fields.get("base_model", ""),
        }
        try:
            await accounts.request("PATCH", "/v1/organization", json=change, **session.who)
        except SartorError as error:
            return await shown(session, problem=error.message, status=error.status)
        return RedirectResponse("/policy?saved=true", SEE_OTHER)


def _add_account(router: Router, web: Web, accounts: Peer) -> None:
    @router.get("/account")
    async def account_page(request: Request, changed: bool = False) -> Response:
        session = await web.session(request)
        return web.page("operate/account", session, problem="", changed=changed)

    @router.post("/account")
    async def change_password(request: Request) -> Response:
        """The person goes on in a session of their own; their other ones end within a minute."""
        session = await web.session(request)
        fields = await web.form(request, session)
        wanted = {name: fields.get(name, "") for name in ("current", "new")} | {"address": address_of(request)}
        try:
            place = "/internal/users/{}/password"
            answer = await accounts.post(place, session.user_id, json=wanted, tenant_id=session.tenant_id)
        except SartorError as error:
            return web.page("operate/account", session, status=error.status, problem=error.message, changed=False)
        return await web.signed_in(request, Person.model_validate(answer), "/account?changed=true")
