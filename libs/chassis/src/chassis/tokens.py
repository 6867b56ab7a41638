"""The short-lived signed tokens that services show each other."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet, OKPKey

from chassis.auth import OF_SERVICE, TOKEN_REFUSED, Principal
from chassis.errors import Unauthenticated
from chassis.limits import Allowance

TOKEN_SECONDS = 60
CLOCK_SKEW_SECONDS = 10


class Tokens:
    """Signs and verifies the tokens services show each other (Ed25519, audience-bound, 60 s).

    Args:
        service: this service's package name, the `iss` of what it signs and the `aud` of what it accepts.
        private_key: Ed25519 key in PEM.
        public_keys: JWKS holding every service's public key, `kid` = service name; two of a service while its key is
            replaced, and what either signed is accepted.
    """

    def __init__(self, service: str, private_key: bytes, public_keys: str) -> None:
        self.service = service
        self._private = OKPKey.import_key(private_key)
        self._public = _by_place(json.loads(public_keys)["keys"])

    @classmethod
    def from_files(cls, service: str, private_key_file: Path | None, public_keys_file: Path | None) -> Tokens:
        """Read the keys named in the settings.

        Raises:
            ValueError: a file is not named or cannot be read.
        """
        if private_key_file is None or public_keys_file is None:
            raise ValueError("set SARTOR_TOKEN_PRIVATE_KEY_FILE and SARTOR_TOKEN_PUBLIC_KEYS_FILE")
        return cls(service, private_key_file.read_bytes(), public_keys_file.read_text())

    def sign(self, audience: str, tenant_id: str, user: Principal | None = None) -> str:
        """A token that lets this service act for `tenant_id` at service `audience` for a minute.

        Args:
            audience: package name of the service called.
            tenant_id: the tenant acted for.
            user: whom it acts for; their role and scopes then limit what the token may do.
        """
        issued = int(time.time())
        claims = {
            "iss": self.service,
            "aud": audience,
            "tenant": tenant_id,
            "user": user.user_id if user else None,
            "key": user.key_id if user else "",
            "role": user.role if user else "operator",
            "owner_role": user.owner_role if user else "",
            "scopes": sorted(user.scopes) if user else ["*"],
            "organization": user.organization if user else "",
            "allowances": [asdict(allowance) for allowance in user.allowances] if user else [],
            "iat": issued,
            "exp": issued + TOKEN_SECONDS,
        }
        return jwt.encode({"alg": "Ed25519", "kid": self.service}, claims, self._private, algorithms=["Ed25519"])

    def verify(self, token: str) -> Principal:
        """The service and tenant a token names.

        Raises:
            Unauthenticated: wrong signature, audience or issuer, or expired.
        """
        try:
            decoded = self._decode(token)
            claims = decoded.claims
            rules = jwt.JWTClaimsRegistry(
                leeway=CLOCK_SKEW_SECONDS,
                aud={"essential": True, "value": self.service},
                exp={"essential": True},
                iss={"essential": True, "value": str(decoded.header.get("kid"))},
                tenant={"essential": True, "allow_blank": True},
            )
            rules.validate(claims)
        except (JoseError, ValueError, KeyError) as error:
            raise Unauthenticated(f"The service token was refused: {error}.", code=TOKEN_REFUSED) from error
        return Principal(
            tenant_id=str(claims["tenant"]),
            user_id=claims.get("user"),
            role=str(claims.get("role")),
            owner_role=str(claims.get("owner_role", "")),
            scopes=frozenset(claims.get("scopes", ["*"])),
            organization=str(claims.get("organization")),
            allowances=tuple(map(Allowance.read, claims.get("allowances", ()))),
            caller=str(claims["iss"]),
            key_id=str(claims.get("key") or f"{OF_SERVICE}{claims['iss']}"),
        )

    def _decode(self, token: str) -> jwt.Token:
        """What a token says, if one of the keys of the service that it names signed it."""
        *others, last = self._public
        for keys in others:
            with suppress(BadSignatureError, InvalidKeyIdError):
                return jwt.decode(token, keys, algorithms=["Ed25519"])
        return jwt.decode(token, last, algorithms=["Ed25519"])


def _by_place(keys: list[dict[str, str | list[str]]]) -> list[KeySet]:
    """Sets that hold one key of a service each, since a set finds one by its `kid`."""
    sets: list[list[dict[str, str | list[str]]]] = [[]]
    for key in keys:
        fitting = next((one for one in sets if all(other["kid"] != key["kid"] for other in one)), None)
        if fitting is None:
            sets.append([key])
        else:
            fitting.append(key)
    return [KeySet.import_key_set({"keys": one}) for one in sets]
