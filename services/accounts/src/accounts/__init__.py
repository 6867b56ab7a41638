"""Tenants, users, roles, API keys and the audit trail."""
