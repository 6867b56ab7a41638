"""Bugs in what installs and carries the services."""

from __future__ import annotations

from tests.planted.bug import Planted, bug

BUGS: tuple[Planted, ...] = (
    bug(
        "sbom: an image does not say which torch it has",
        "infra.docker.sbom:images",
        ", lock.with_name(f'torch_{torch}.txt')",
        "",
        "tests/contract/test_sbom.py::test_a_licence_is_told_in_the_packages_own_words",
    ),
    bug(
        "sbom: a build that has another version than its lock says the lock's",
        "infra.docker.sbom:main",
        "for name, version in installed - named if",
        "for name, version in installed if name not in {one for one, _ in named} and",
        "tests/contract/test_sbom.py::test_a_build_ends_where_something_is_installed_that_no_lock_names",
    ),
    bug(
        "sbom: a build calls its image otherwise than the rest",
        "infra.docker.sbom:main",
        "bom(Path(), image_name(asked.image)",
        "bom(Path(), asked.image",
        "tests/contract/test_sbom.py::test_a_build_says_the_same_as_what_is_written_for_all",
    ),
    bug(
        "sbom: a build names only what it expected",
        "infra.docker.sbom:main",
        "if unnamed:",
        "if False:",
        "tests/contract/test_sbom.py::test_a_build_ends_where_something_is_installed_that_no_lock_names",
    ),
    bug(
        "replicas: the ingress asks a replica that is gone and no other",
        "localstack:NEXT_REPLICA",
        "NEXT_REPLICA = ['lb_policy round_robin', 'lb_retries 10', 'lb_try_interval 50ms']",
        "NEXT_REPLICA = ['lb_policy round_robin', 'lb_try_interval 50ms']",
        "infra/local/tests/test_scale.py::test_requests_are_shared_and_a_replica_that_is_gone_is_not_heard",
    ),
    bug(
        "replicas: a request that kills its process is taken to every replica",
        "localstack:ASKED_AGAIN",
        "{http.regexp.again.0} == null",
        "method('GET')",
        "infra/local/tests/test_scale.py::test_a_request_that_breaks_every_replica_breaks_two",
    ),
    bug(
        "replicas: what was answered is asked again",
        "localstack:ASKED_AGAIN",
        "{http.reverse_proxy.is_transport_error} == true",
        "true",
        "infra/local/tests/test_scale.py::test_a_request_that_is_answered_is_asked_once",
    ),
    bug(
        "a service that has no database any more keeps its user",
        "provision:provide_users",
        "admin.command('dropUser', name)",
        "pass",
        "infra/provision/tests/test_provision.py::test_a_service_that_has_no_database_any_more_has_no_user_either",
    ),
)
