"""Bugs in leases, leased work, stored things and the life of a service."""

from __future__ import annotations

from tests.planted.bug import Planted, bug

QUEUE_TEST = "libs/work/tests/test_queue.py"
WORKER_TEST = "libs/work/tests/test_worker.py"
TWO_PROXIES = "services/inference_proxy/tests/test_two_replicas.py"
ROTATION = "services/accounts/tests/test_rotation.py"
INGEST_DELETION = "services/ingest/tests/test_deletion.py"
HTTP = "libs/chassis/tests/test_http.py"

BUGS: tuple[Planted, ...] = (
    bug(
        "tenants whose work is under way are asked for work",
        "work:tenants_with_work",
        ", {'$match': {'$expr': {'$lt': ['$free', SERVER_MS]}}}",
        "",
        f"{QUEUE_TEST}::test_who_has_nothing_free_is_not_asked_for_work",
    ),
    bug(
        "looking for work reads all that waits",
        "work:tenants_with_work",
        "{'$sort': {'state': 1, 'tenant_id': 1, 'lease.until_ms': 1}}",
        "{'$sort': {'lease.until_ms': 1}}",
        f"{QUEUE_TEST}::test_looking_for_work_is_a_walk_along_an_index",
    ),
    bug(
        "work goes on after its lease was lost",
        "work:Held._keep",
        "self._lost.set()",
        "pass",
        f"{WORKER_TEST}::test_what_may_be_broken_off_is_when_the_lease_is_lost",
    ),
    bug(
        "a place is given for the sake of who had a later turn",
        "work:WorkQueue.next_turn",
        "return (await self._in_turn({*waiting, one.tenant_id}))[0] if waiting else None",
        "return next(iter(waiting), None)",
        f"{QUEUE_TEST}::test_a_place_is_given_only_where_it_goes_to_another_tenant",
    ),
    bug(
        "turns are noted by the clocks of workers",
        "work:WorkQueue.take_turn",
        "NOW_AS_TURN",
        "{'$set': {'at': __import__('chassis.clock').clock.wall()}}",
        f"{QUEUE_TEST}::test_turns_come_in_their_order_whatever_the_clocks_of_workers_say",
    ),
    bug(
        "who stops while it claims keeps what it claimed",
        "work:WorkQueue.claim",
        "await asyncio.shield(self._unclaim(claiming))",
        "pass",
        f"{QUEUE_TEST}::test_who_stops_while_it_claims_gives_back_what_it_claimed",
    ),
    bug(
        "another service's conflict means that the work is another's",
        "work:end_of",
        "if isinstance(error, WriteRefused):",
        "if getattr(error, 'code', '') in ('stale_fence', 'stale_write', 'wrong_state'):",
        f"{WORKER_TEST}::test_an_attempt_ends_in_one_way_and_is_counted_once",
    ),
    bug(
        "an outage counts against the work it meets",
        "work:end_of",
        "if isinstance(error, (Transient, PyMongoError)):",
        "if isinstance(error, PyMongoError):",
        f"{WORKER_TEST}::test_an_attempt_ends_in_one_way_and_is_counted_once",
    ),
    bug(
        "work that fails is tried for ever",
        "work:LeasedWorker._count",
        "if failures >= self._policy.most_failures:",
        "if failures > 9 * self._policy.most_failures:",
        f"{WORKER_TEST}::test_work_that_fails_again_and_again_is_given_up",
    ),
    bug(
        "a worker that stops keeps what it holds",
        "work:LeasedWorker.work",
        "await asyncio.shield(self._give_back(one, Lost('stopped')))",
        "pass",
        f"{WORKER_TEST}::test_a_worker_that_stops_gives_its_work_back_uncounted",
    ),
    bug(
        "a place is given where another tenant has work, whoever's turn it is",
        "work:WorkQueue.next_turn",
        "self._in_turn({*waiting, one.tenant_id})",
        "self._in_turn(waiting)",
    ),
    bug(
        "an index with other options stops the start",
        "stores:ensure_index",
        "if error.code not in INDEX_CONFLICTS:",
        "if True:",
        "libs/stores/tests/test_mongo.py::test_an_index_with_other_options_takes_the_place_of_an_older_one",
    ),
    bug(
        "lease by the client's clock",
        "stores:Leases.claim",
        "{'$and': [query, FREE]}",
        "{'$and': [query, {'lease.until_ms': {'$lt': int(__import__('time').time() * 1000)}}]}",
    ),
    bug(
        "claim ignores live leases",
        "stores:Leases.claim",
        "{'$and': [query, FREE]}",
        "query",
    ),
    bug(
        "the fence does not rise",
        "stores:Leases.claim",
        "{'$add': ['$lease.fence', 1]}",
        "'$lease.fence'",
    ),
    bug(
        "a released lease forgets its fence",
        "stores:GIVEN_BACK",
        "{'lease.owner': '', 'lease.until_ms': 0, 'lease.unfinished': 0}",
        "{'lease.owner': '', 'lease.until_ms': 0, 'lease.unfinished': 0, 'lease.fence': 0}",
    ),
    bug(
        "what one holds another takes",
        "stores:Holds.take",
        "{**query, **self.free_for(holder)}",
        "query",
        "libs/stores/tests/test_leases.py::test_who_holds_a_document_keeps_it_until_it_is_given_back_or_over",
    ),
    bug(
        "a page begins with what is in two pages",
        "stores:following",
        "same = {name: last[name] for name, _ in order[:place]}",
        "same = {name: {'$exists': True} for name, _ in order[:place]}",
        "libs/stores/tests/test_paging.py::test_pages_follow_each_other_without_gap_or_repetition",
    ),
    bug(
        "a claim that nobody ends counts for nothing",
        "stores:Leases.claim",
        "{'$add': [{'$ifNull': ['$lease.unfinished', 0]}, 1]}",
        "0",
        f"{QUEUE_TEST}::test_a_worker_that_dies_counts_by_itself_and_one_that_gives_back_does_not",
    ),
    bug(
        "downloads are not checked",
        "stores:Objects._download",
        "if digest.hexdigest() != ref.sha256:",
        "if ref.sha256 == '':",
        "libs/stores/tests/test_objects.py::test_changed_bytes_are_refused",
    ),
    bug(
        "a stream of other bytes than were stored comes to its end",
        "stores:Objects.stream",
        "if digest.hexdigest() != ref.sha256:",
        "if False:",
        "libs/stores/tests/test_objects.py::test_a_stream_of_changed_bytes_never_comes_to_its_end",
    ),
    bug(
        "replicas: each replica grants the limits for itself",
        "stores:SharedLimit.exchange",
        "self._limiter.learn(await self._count(used))",
        "await self._count(used)",
        f"{TWO_PROXIES}::test_what_one_replica_let_through_is_not_granted_again_by_the_other",
    ),
    bug(
        "replicas: who has not heard of a higher limit cuts what all have left",
        "stores:_less",
        "'limit': {'$cond': [higher, '$limit', limit]}",
        "'limit': limit",
        "libs/stores/tests/test_shared_limits.py"
        "::test_who_believes_a_lower_limit_takes_nothing_from_who_heard_of_the_higher",
    ),
    bug(
        "a service's clock outlives it",
        "runtime:Service._lifespan",
        "CLOCK.reset(before)",
        "pass",
        "services/registry/tests/test_use_cases.py::test_a_services_clock_is_its_own_and_goes_with_it",
    ),
    bug(
        "keys: no service hears of a rotation",
        "runtime:Service._on_key_rotated",
        "self.authenticator.end(event.key_hash, event.ends_at)",
        "del event",
        f"{ROTATION}::test_without_a_grace_the_old_secret_ends_at_once",
    ),
    bug(
        "deletion: looking for leftovers removes them",
        "runtime:leftover_routes",
        "await leftovers.purge() if asked.purge else 0",
        "await leftovers.purge()",
        f"{INGEST_DELETION}::test_what_an_earlier_release_left_of_deleted_files_is_found_and_goes",
    ),
    bug(
        "idempotency key ignores the body",
        "runtime:_expect_hash",
        "if stored['body_hash'] != body_hash:",
        "if stored['body_hash'] == '':",
        f"{HTTP}::test_an_idempotency_key_gives_the_same_answer_once",
    ),
    bug(
        "an attempt that fails forgets what an earlier one made",
        "runtime:Idempotency._let_go",
        "if answered or (attempt.first and (not asked or recorder.status == 429)):",
        "if True:",
        f"{HTTP}::test_what_an_attempt_made_that_died_is_found_whatever_became_of_later_ones",
    ),
    bug(
        "idempotency answer not stored",
        "runtime:_Recorder.__call__",
        "await self._store(self)",
        "pass",
        f"{HTTP}::test_an_idempotency_key_gives_the_same_answer_once",
    ),
    bug(
        "half a body is a request",
        "runtime:_read",
        "return None",
        "return bytes(body)",
        f"{HTTP}::test_a_body_that_was_cut_off_was_not_asked",
    ),
    bug(
        "an answer too large for a document is kept",
        "runtime:_Recorder.__call__",
        "not message.get('more_body', False) and len(self.body) <= MAX_BODY",
        "not message.get('more_body', False)",
        f"{HTTP}::test_an_answer_too_large_to_be_kept_is_made_again",
    ),
    bug(
        "an answer is kept against the promise",
        "runtime:Idempotency._answer",
        "if scope.get('state', {}).get(DONE_AGAIN):",
        "if False:",
        f"{HTTP}::test_what_is_promised_not_to_be_kept_is_not_kept_for_a_repetition",
    ),
    bug(
        "upload: a key means the same file for ever",
        "runtime:_Attempt.seed",
        "return f'{self.record_id}{self.life}'",
        "return self.record_id",
        "services/ingest/tests/test_repeats.py::test_a_key_may_be_used_for_another_file_once_its_time_is_over",
    ),
)
