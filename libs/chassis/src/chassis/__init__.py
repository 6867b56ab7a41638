"""What every service shares: settings, logging, errors, HTTP application, health, authentication."""
