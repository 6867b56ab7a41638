"""What services answer each other over HTTP: a file per service that answers."""
