"""Lets a person choose the version by which a name answers."""

from __future__ import annotations

from chassis.errors import WriteRefused
from chassis.ids import now
from registry.domain import Bound, Model, Unsaid, hands_over_below, is_version_id, pin, pins_of, unpin
from registry.store import Models


class Pinning:
    """Has a name answer by the version that a person pinned, until that ends."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def pin(
        self, tenant_id: str, model_id: str, by: str, note: str, hand_over_below: Bound = Unsaid.BOUND
    ) -> Model:
        """A person pins a version, in the place of the one that was pinned before; see `_meant`.

        To pin the one that is pinned changes nothing, but for the bound below which it hands over, where one is said.

        Raises:
            NotFound: there is none.
            WriteRefused: it is not in production, or could be one of several.
            Invalid: it shall hand over, and does not tell how sure it is.
        """
        meant = await self._meant(tenant_id, model_id)
        pinned = pins_of(await self._models.serving(tenant_id, [meant.name]))
        former = pinned[-1] if pinned else None
        known = hands_over_below(former) if former and former.id == meant.id else None
        below = known if isinstance(hand_over_below, Unsaid) else hand_over_below
        if former is None or (former.id, known) != (meant.id, below):
            await self._models.update(tenant_id, meant.id, lambda one: pin(one, former, by, note, now(), below))
        await self._leave_the_last(tenant_id, meant.name, by)
        return await self._models.get(tenant_id, meant.id)

    async def unpin(self, tenant_id: str, model_id: str, by: str, note: str) -> Model:
        """A person leaves it to tests again by which version a name answers, said by it or by the pinned version.

        Raises:
            NotFound: there is none.
            WriteRefused: no version of the name is pinned, or another is than the one that is meant.
        """
        name = (await self._models.version(tenant_id, model_id)).name
        pinned = pins_of(await self._models.serving(tenant_id, [name]))
        if not pinned:
            raise WriteRefused(
                f"No version of '{name}' is pinned: tests choose by which one it answers already.", code="wrong_state"
            )
        if is_version_id(model_id) and all(one.id != model_id for one in pinned):
            raise WriteRefused(f"'{model_id}' is not pinned: '{pinned[-1].id}' is.", code="wrong_state")
        for one in pinned:
            await self._end(one, by, note)
        return await self._models.get(tenant_id, pinned[-1].id)

    async def _leave_the_last(self, tenant_id: str, name: str, by: str) -> None:
        """End every pin of a name but the last, whoever else pins at the same moment: all agree which one that is."""
        pinned = pins_of(await self._models.serving(tenant_id, [name]))
        for one in pinned[:-1]:
            await self._end(one, by, f"{pinned[-1].id} is pinned instead.")

    async def _end(self, model: Model, by: str, note: str) -> None:
        """End the pin that was seen; one that followed it stays."""
        await self._models.update(model.tenant_id, model.id, lambda one: unpin(one, model.pin, by, note, now()))

    async def _meant(self, tenant_id: str, model_id: str) -> Model:
        """The version of that id; of a name with several, its adapter in production.

        Raises:
            NotFound: there is none.
            WriteRefused: the name has several versions, and its adapter is not in production.
        """
        named = [] if is_version_id(model_id) else await self._models.named(tenant_id, model_id)
        if len(named) < 2:
            return named[0] if named else await self._models.get(tenant_id, model_id)
        serving = [one for one in named if one.state == "production"]
        adapter = next((one for one in serving if one.id == model_id), None)
        if adapter is None:
            known = ", ".join(sorted(one.id for one in serving or named))
            raise WriteRefused(
                f"'{model_id}' has several versions, and its adapter is not in production: pin one of {known}.",
                code="several_versions",
            )
        return adapter
