"""People: who signs in, by which address and password, as what."""

from __future__ import annotations

import re

from chassis.errors import Conflict, Invalid
from chassis.roles import ROLES
from eventbus import Aggregate

GRANTABLE = tuple(role for role in ROLES if role != "operator")
SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 256
INVITATION_SECONDS = 7 * 86_400
RESET_SECONDS = 86_400

# One @ with something on both sides and a dot in the domain; real proof is a mail that arrives.
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[^@\s.]{2,}")


class User(Aggregate):
    """A person who signs in, or was invited to.

    `email` is casefolded, and of those who have a password unique in the installation. `code_hash` is the SHA-256 of
    the one-time code by which they choose a password, and empty where there is none.
    """

    created_at: int
    email: str
    password_hash: str = ""
    password_changed_at: int = 0
    code_hash: str = ""
    code_expires_at: int = 0
    role: str = "owner"
    disabled: bool = False

    @property
    def status(self) -> str:
        """`invited` until they have chosen a password, then `active`; `disabled` while they are shut out."""
        if self.disabled:
            return "disabled"
        return "active" if self.password_hash else "invited"

    @property
    def counts_as_owner(self) -> bool:
        """Whether they can act as an owner."""
        return self.role == "owner" and self.status == "active"

    def change_role(self, role: str) -> None:
        """Give the person another role; a code that was given for the one before holds no longer.

        Raises:
            Invalid: there is no such role.
        """
        if known_role(role) != self.role:
            self.role = role
            self.give_code("", 0)

    def unchanged_since(self, seen: User) -> None:
        """See that the rights which were looked at are those the person has.

        Raises:
            Conflict: they are others by now.
        """
        if (self.role, self.disabled) != (seen.role, seen.disabled):
            raise Conflict("This person was changed by somebody else just now. Look again.", code="changed_meanwhile")

    def disable(self, disabled: bool) -> None:
        """Shut the person out, or let them in again."""
        self.disabled = disabled

    def give_code(self, code_hash: str, expires_at: int) -> None:
        """Let them choose a password with a code; one given before holds no longer."""
        self.code_hash, self.code_expires_at = code_hash, expires_at

    def choose_password(self, password_hash: str, at: int, code_hash: str = "") -> None:
        """Set their password, by a code where one is named; it is used up.

        Raises:
            Conflict: somebody was faster with the code, or another one was given.
        """
        if code_hash and self.code_hash != code_hash:
            raise Conflict("This code was used already. Sign in, or ask for another one.", code="used_code")
        self.password_hash, self.password_changed_at = password_hash, at
        self.give_code("", 0)


def checked_email(email: str) -> str:
    """The address in the form it is stored in.

    Raises:
        Invalid: it does not look like one.
    """
    folded = email.strip().casefold()
    if len(folded) > 254 or not EMAIL.fullmatch(folded):
        raise Invalid("email: this does not look like an e-mail address.", param="email")
    return folded


def checked_password(password: str) -> str:
    """The password, if it is long enough.

    Raises:
        Invalid: too short or too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Invalid(
            f"password: use {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters; a few words are a good choice.",
            param="password",
        )
    return password


def known_role(role: str) -> str:
    """The role, if a tenant may give it.

    Raises:
        Invalid: there is no such role.
    """
    if role not in GRANTABLE:
        raise Invalid(f"role: '{role}' is not one of {', '.join(GRANTABLE)}.", param="role")
    return role
