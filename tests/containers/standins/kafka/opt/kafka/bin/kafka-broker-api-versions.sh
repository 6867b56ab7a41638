#!/bin/bash
# Whether the broker takes connections.
exec 3<>/dev/tcp/localhost/9092
