"""Chat and completions on each tenant's own models, through TGI."""
