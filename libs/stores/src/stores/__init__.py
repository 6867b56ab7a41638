"""The document store and the object store; the only package that imports motor and minio."""
