"""The accounts service's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What accounts reads from the environment besides the settings every service has."""

    operator_key_file: Path | None = Field(
        None, description="File with the operator's API key, one a line while it is replaced; read at every start."
    )
    requests_per_minute: int = Field(3000, ge=1, description="Requests a minute of a key that names no limit.")
    tokens_per_minute: int = Field(200_000, ge=1, description="Tokens a minute of a key that names no limit.")
    tenant_requests_per_minute: int = Field(
        6000, ge=1, description="Requests a minute of all keys of a tenant, where the operator set it no other limit."
    )
    tenant_tokens_per_minute: int = Field(
        1_000_000,
        ge=1,
        description="Tokens a minute of all keys of a tenant, where the operator set it no other limit.",
    )
    tenant_keys: int = Field(1000, ge=1, description="Most API keys of a tenant that are in use.")
    tenant_people: int = Field(1000, ge=1, description="Most people of a tenant.")
    sign_in_attempts: int = Field(
        10,
        ge=1,
        description="Failed sign-ins of one person from one network address in 15 minutes.",
    )
    sign_in_attempts_anywhere: int = Field(
        100, ge=1, description="Failed sign-ins of one person from all network addresses in 15 minutes."
    )
    sign_up: bool = Field(True, description="Whether strangers may sign up; if not, the operator makes the tenants.")
    sign_ups_per_hour: int = Field(200, ge=0, description="Most new tenants in an hour before strangers must wait.")
    sign_ups_per_hour_each: int = Field(20, ge=0, description="Most new tenants in an hour from one network address.")

    def operator_keys(self) -> list[str]:
        """The operator's API keys; none where no file is named.

        Raises:
            ValueError: the file cannot be read or holds no key, by which every key the operator has would be revoked.
        """
        if self.operator_key_file is None:
            return []
        try:
            found = self.operator_key_file.read_text().split()
        except OSError as error:
            raise ValueError(f"operator_key_file: cannot read {self.operator_key_file}: {error.strerror}") from error
        if not found:
            raise ValueError(f"operator_key_file: {self.operator_key_file} is empty; put the operator's key into it")
        return found
