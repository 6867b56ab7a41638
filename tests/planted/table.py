"""Bugs to plant: what the source says, what it is made to say instead, and the suite that must notice."""

from __future__ import annotations

from dataclasses import dataclass

SIM = "sim"
"""The simulation; any other suite is a pytest node."""

LANES = "libs/eventbus/src/eventbus/lanes.py"
BUS = "libs/eventbus/src/eventbus/bus.py"
OUTBOX = "libs/eventbus/src/eventbus/outbox.py"
RELAY = "libs/eventbus/src/eventbus/relay.py"
LEASES = "libs/stores/src/stores/leases.py"
PARKING = "libs/eventbus/src/eventbus/parking.py"
LANES_TEST = "libs/eventbus/tests/test_lanes.py"
DELIVERY = "libs/eventbus/tests/test_delivery.py"
RELAY_TEST = "libs/eventbus/tests/test_relay.py"
UNREADABLE_TEST = "libs/eventbus/tests/test_unreadable_documents.py"
WORK = "libs/work/src/work"
WORKER_TEST = "libs/work/tests/test_worker.py"
QUEUE_TEST = "libs/work/tests/test_queue.py"
HTTP = "libs/chassis/tests/test_http.py"
ENGINES = "services/inference_proxy/src/inference_proxy/engines"
CANDIDATES = "services/inference_proxy/tests/test_candidates.py"
PROVIDERS = "services/inference_proxy/tests/test_providers.py"
TWO_PROXIES = "services/inference_proxy/tests/test_two_replicas.py"
SHARED_LIMITS = "libs/stores/src/stores/shared_limits.py"
REGISTRY = "services/registry/tests/test_registry_service.py"
ECHO = "services/inference_proxy/tests/test_model_identity.py"
RESIDENCY = "libs/serving/tests/test_residency.py"
REPLICAS = "services/registry/tests/test_replicas.py"
EVENTS = "schemas/src/schemas/events"
ENVELOPE = "schemas/src/schemas/envelope.py"
RECORDINGS = "tests/contract/test_recordings.py"
CONSOLE = "services/console/tests/test_console_service.py"
ROOMS = "services/console/tests/test_rooms.py"
PEOPLE = "services/accounts/tests/test_people.py"
KEY_RULES = "services/accounts/src/accounts/domain/keys.py"
ROTATION = "services/accounts/tests/test_rotation.py"
PROGRESS = "services/console/tests/test_console_progress.py"
COMMANDS = "cli/tests/test_api_commands.py"
TRAINING = "services/trainer/tests/test_worker.py"
STATES = "services/trainer/tests/test_domain.py"
INDEXER = "services/rag_indexer/src/rag_indexer"
INDEXER_TEST = "services/rag_indexer/tests/test_service.py"
CHUNKS_TEST = "services/rag_indexer/tests/test_chunking.py"
PARTS_TEST = "services/rag_indexer/tests/test_parts.py"
LABELING_TEST = "services/labeling/tests/test_service.py"
READERS = "services/ingest/src/ingest/readers"
READERS_TEST = "services/ingest/tests/test_readers.py"
WORKBOOK_TEST = "services/ingest/tests/test_workbook.py"
METRICS = "services/evaluator/src/evaluator/metrics"
METRICS_TEST = "services/evaluator/tests/test_metrics.py"
CLEANING = "services/ingest/src/ingest/cleaning.py"
GROUPING = "services/ingest/src/ingest/grouping.py"
CLEANING_TEST = "services/ingest/tests/test_cleaning.py"
INGEST = "services/ingest/src/ingest"
INGEST_WORKER = "services/ingest/tests/test_worker.py"
INGEST_DELETION = "services/ingest/tests/test_deletion.py"
LABELING_DELETION = "services/labeling/tests/test_deletion.py"
EVALUATOR_TEST = "services/evaluator/tests/test_evaluator_service.py"
PUBLISHED_TEST = "services/evaluator/tests/test_published.py"
PRETRAIN = "services/trainer/src/trainer/run/methods/pretrain.py"
PRETRAIN_TEST = "services/trainer/tests/test_pretrain.py"
JOB_DATA = "services/trainer/src/trainer/job_data.py"
TEXT_JOBS = "services/trainer/tests/test_text_jobs.py"

GATEWAY = "services/event_gateway/src/event_gateway"
GATEWAY_RULES = "services/event_gateway/tests/test_domain.py"
SENDING = "services/event_gateway/tests/test_sending.py"
PUBLISHING = "services/event_gateway/tests/test_publishing.py"
READING = "services/event_gateway/tests/test_reading.py"
WEBHOOKS = "services/event_gateway/tests/test_webhooks.py"

OVER = "waits = self.patience.is_over(attempts, time.monotonic() - began)"

RECORD = "            "
SETTLE = "rest := await self._settle(record)"
ACKED = f'{RECORD}crash_point("relay.acked")\n'
PUBLISH = f"{RECORD}await self._publish_or_give_up(store, document, record)\n"
REMOVE = (
    f'{RECORD}await store.collection.update_one({{"_id": document["_id"]}}, '
    '{"$pull": {"outbox": {"id": record["id"]}}})\n'
)


@dataclass(frozen=True)
class Edit:
    """One exact text in one file, and what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Planted:
    """A bug, in one or more edits, and who must catch it."""

    name: str
    edits: tuple[Edit, ...]
    suite: str = SIM


def bug(name: str, file: str, old: str, new: str, suite: str = SIM) -> Planted:
    """A bug of one edit."""
    return Planted(name, (Edit(file, old, new),), suite)


BUGS: tuple[Planted, ...] = (
    # consumers
    bug("ack before effect", LANES, SETTLE, f"progress.finish(offset) or ({SETTLE})"),
    bug(
        "ack before the dead letter is written",
        LANES,
        "        await rest\n        self._finish(progress, offset)\n",
        "        self._finish(progress, offset)\n        await rest\n",
        f"{LANES_TEST}::test_what_is_left_to_do_holds_the_commit_and_its_room_but_not_the_key",
    ),
    bug(
        "a commit passes what is not done",
        LANES,
        "        self._done.add(offset)\n",
        "        self._done.add(offset)\n        self.done_until = offset + 1\n",
    ),
    bug(
        "a new owner's partition is committed by the last one",
        LANES,
        """        for progress in before.values():
            progress.current = False
        await self._let_end(LET_GO_SECONDS, before)
""",
        """        self._progress = before
        await self._let_end(LET_GO_SECONDS, before)
""",
        f"{LANES_TEST}::test_a_rebalance_finishes_what_began_and_leaves_the_rest",
    ),
    bug("a consumer begins at the end", BUS, 'auto_offset_reset="earliest"', 'auto_offset_reset="latest"'),
    bug(
        "retry blocks the partition",
        BUS,
        OVER + " or await self._parking.holds(record)",
        "waits = await self._parking.holds(record)",
        f"{DELIVERY}::test_a_key_that_cannot_be_handled_waits_and_every_other_goes_on",
    ),
    bug(
        "later messages pass a parked one",
        BUS,
        OVER + " or await self._parking.holds(record)",
        OVER,
    ),
    bug(
        "dead letter without the original bytes",
        BUS,
        'await self.send(f"{record.topic}-dlq", record.key, record.value, headers)',
        'await self.send(f"{record.topic}-dlq", record.key, b"{}", headers)',
    ),
    bug(
        "dead letter before the retries",
        BUS,
        "last = failed >= (self.patience.attempts_while_away if away else self.patience.attempts)",
        "last = failed >= 1",
    ),
    bug(
        "seen is written before the effect",
        "libs/eventbus/src/eventbus/retries.py",
        """            outcome = await self._attempt(held)
""",
        """            await self._parking.done(held, math.inf)
            outcome = await self._attempt(held)
""",
    ),
    bug(
        "a replayed letter goes to every consumer",
        BUS,
        "if record.headers.get(REPLAY_FOR, self._service) != self._service:",
        'if record.headers.get(REPLAY_FOR) == "nobody":',
        "services/accounts/tests/test_dead_letters.py",
    ),
    bug(
        "a failed dead letter is forgotten",
        BUS,
        "        self._dead_in_a_row += 1\n",
        "",
        f"{DELIVERY}::test_many_dead_letters_in_a_row_make_the_consumer_unready",
    ),
    # parked keys
    bug("parked order reversed", PARKING, 'first = document["messages"][0]', 'first = document["messages"][-1]'),
    bug(
        "a parked key is let go with its messages",
        PARKING,
        '{**self._mine(held), "messages.1": {"$exists": False}}',
        "self._mine(held)",
        f"{DELIVERY}::test_a_message_read_again_is_parked_once_and_a_full_key_holds_the_partition",
    ),
    bug(
        "a message read again is parked again",
        PARKING,
        '"messages.place": {"$ne": place}, full',
        "full",
        f"{DELIVERY}::test_a_message_read_again_is_parked_once_and_a_full_key_holds_the_partition",
    ),
    bug(
        "a late worker finishes another's message",
        PARKING,
        '{"_id": held.id, "lease.fence": held.fence, "messages.0.place": held.record.place}',
        '{"_id": held.id}',
        f"{DELIVERY}::test_a_late_worker_of_a_parked_key_cannot_finish_a_later_message",
    ),
    bug(
        "a late worker goes on with the next message",
        PARKING,
        "if time.monotonic() + CALL_SECONDS + seconds < held.ends_at:",
        "if True:",
        f"{DELIVERY}::test_the_messages_of_a_parked_key_follow_each_other_under_one_lease",
    ),
    bug(
        "the simulation lacks what is asked of a server",
        PARKING,
        '{"$inc": {"messages.0.attempts": 1}, "$set"',
        '{"$mul": {"messages.0.attempts": 2}, "$set"',
    ),
    bug(
        "a spoilt checkpoint fails the job",
        "services/trainer/src/trainer/worker.py",
        'if error.code == "checkpoint_corrupt":',
        'if error.code == "":',
    ),
    bug(
        "a job that cannot be begun ends the sweep",
        "services/trainer/src/trainer/sweep.py",
        "        except PyMongoError:\n            raise  # the others cannot be begun either\n",
        "        except Exception:\n            raise\n",
        f"{TRAINING}::test_a_job_that_cannot_be_begun_holds_up_no_other_and_no_deletion",
    ),
    # outbox and relay
    bug("relay removes before the broker's ack", RELAY, PUBLISH + ACKED + REMOVE, REMOVE + PUBLISH),
    bug(
        "relay without a lease",
        RELAY,
        "        if held is None:\n            return False\n",
        "        if held is None:\n            return True\n",
        f"{RELAY_TEST}::test_one_replica_relays_at_a_time",
    ),
    bug(
        "a relay asks for its lease only once",
        RELAY,
        "            if not await self._hold_lease():\n                raise",
        "            if False:\n                raise",
        f"{RELAY_TEST}::test_a_relay_that_lost_its_lease_between_two_events_publishes_no_more",
    ),
    bug(
        "relay publishes the newest first",
        RELAY,
        'for record in document["outbox"]:',
        'for record in reversed(document["outbox"]):',
    ),
    bug(
        "an event that cannot be published is tried for ever",
        RELAY,
        "        except UNPUBLISHABLE as error:\n",
        "        except ZeroDivisionError as error:\n",
        f"{RELAY_TEST}::test_what_cannot_be_published_is_given_up_and_the_rest_flows",
    ),
    bug(
        "a failing aggregate holds up all that waits beside it",
        RELAY,
        "                failure = outcome\n",
        "                raise outcome\n",
        f"{RELAY_TEST}::test_aggregates_whose_events_are_not_acknowledged_hold_up_no_others",
    ),
    bug(
        "while the broker is away all that waits is tried",
        RELAY,
        "room = min(PARALLEL, MOST_FAILING - len(failing))",
        "room = PARALLEL",
        f"{RELAY_TEST}::test_while_the_broker_is_away_some_aggregates_are_tried_and_after_that_all_are_published",
    ),
    bug(
        "an event is given up for those it was sent together with",
        BUS,
        "isinstance(error, TOO_LARGE) and size > LARGE_MESSAGE_BYTES",
        "isinstance(error, TOO_LARGE)",
        f"{RELAY_TEST}::test_only_a_message_that_is_too_large_alone_is_refused_for_good",
    ),
    bug(
        "the newest event goes first",
        RELAY,
        '.sort("outbox.0.at", 1)',
        '.sort("outbox.0.at", -1)',
        f"{RELAY_TEST}::test_the_oldest_goes_first",
    ),
    bug(
        "a relay without its lease still tells an age",
        RELAY,
        "            self._let_go()\n            return\n",
        "            return\n",
        f"{RELAY_TEST}::test_a_relay_that_lost_its_lease_says_nothing_of_the_oldest_event",
    ),
    bug(
        "a worker that cannot start is ready",
        "libs/eventbus/src/eventbus/background.py",
        "if state.failures >= MANY and not state.has_run]",
        "if False]",
        "libs/eventbus/tests/test_background.py::test_a_service_whose_worker_cannot_start_is_not_ready",
    ),
    bug(
        "work that waits before it fails passes for running",
        "libs/eventbus/src/eventbus/background.py",
        "SETTLED_SECONDS = 60.0",
        "SETTLED_SECONDS = 10.0",
        "libs/eventbus/tests/test_background.py::test_work_is_told_however_long_it_waits_before_it_fails",
    ),
    bug(
        "a topic keeps the partitions it was made with",
        "libs/eventbus/src/eventbus/topics.py",
        "if 0 < there.get(name, 0) < number}",
        "if False}",
        "libs/eventbus/tests/test_topics.py::test_a_topic_with_fewer_partitions_gets_more",
    ),
    bug(
        "a foreign message spoils the list of dead letters",
        "libs/eventbus/src/eventbus/dead_letters.py",
        "int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0",
        "int(attempts)",
        "libs/eventbus/tests/test_topics.py::test_foreign_messages_among_the_dead_letters_spoil_no_list",
    ),
    bug(
        "half a message is sent back",
        "libs/eventbus/src/eventbus/dead_letters.py",
        "        if letter.cut:\n",
        "        if False:\n",
        "libs/eventbus/tests/test_topics.py::test_a_letter_of_which_only_the_beginning_was_kept_is_not_sent_back",
    ),
    bug(
        "an index with other options stops the start",
        "libs/stores/src/stores/mongo.py",
        "if error.code not in INDEX_CONFLICTS:",
        "if True:",
        "libs/stores/tests/test_mongo.py::test_an_index_with_other_options_takes_the_place_of_an_older_one",
    ),
    bug(
        "tenants whose work is under way are asked for work",
        f"{WORK}/queue.py",
        '        {"$match": {"$expr": {"$lt": ["$free", SERVER_MS]}}},\n',
        "",
        f"{QUEUE_TEST}::test_who_has_nothing_free_is_not_asked_for_work",
    ),
    bug(
        "looking for work reads all that waits",
        f"{WORK}/queue.py",
        '        {"$sort": {"state": 1, "tenant_id": 1, "lease.until_ms": 1}},\n',
        '        {"$sort": {"lease.until_ms": 1}},\n',
        f"{QUEUE_TEST}::test_looking_for_work_is_a_walk_along_an_index",
    ),
    bug(
        "an event may be as large as it likes",
        OUTBOX,
        "        check_size(envelope, data)\n",
        "",
        f"{RELAY_TEST}::test_an_event_that_is_too_large_is_refused_where_it_is_made",
    ),
    bug(
        "event outside the document's write",
        OUTBOX,
        '            change["$push"] = {"outbox": {"$each": outbox}}',
        '            await self.collection.update_one({"_id": aggregate.id}, {"$push": {"outbox": {"$each": outbox}}})',
    ),
    bug("no compare-and-set on the version", OUTBOX, '            "version": aggregate.version,\n', ""),
    Planted(
        "no fence check",
        (
            Edit(OUTBOX, 'query["lease.fence"] = fence', 'query.pop("version")'),
            Edit(OUTBOX, "if fence is not None and aggregate.lease.fence != fence:", "if fence == -1:"),
        ),
    ),
    bug(
        "a number is used twice",
        "libs/eventbus/src/eventbus/aggregate.py",
        """        self.sent = self.sent | {stream: self.sent.get(stream, 0) + 1}
        return self.sent[stream]
""",
        "        return self.sent.get(stream, 0) + 1\n",
    ),
    bug(
        "tenant missing from a query",
        OUTBOX,
        'document = await self.collection.find_one({**query, "tenant_id": tenant_id})',
        "document = await self.collection.find_one(query)",
        f"{DELIVERY}::test_another_tenant_finds_nothing",
    ),
    bug(
        "a document that cannot be read ends the sweep",
        OUTBOX,
        "            if (aggregate := self._read(document)) is not None:\n                yield aggregate\n",
        "            yield self._load(document)\n",
        f"{UNREADABLE_TEST}::test_what_looks_at_all_tenants_looks_at_the_others",
    ),
    bug(
        "work that cannot be read is the oldest for ever",
        OUTBOX,
        "            if (aggregate := self._read(document)) is not None:\n                return aggregate\n",
        "            return self._load(document)\n",
        f"{UNREADABLE_TEST}::test_a_worker_gets_the_others_and_finds_it_again_once_it_is_mended",
    ),
    # leases
    bug(
        "lease by the client's clock",
        LEASES,
        '            {"$and": [query, FREE]},\n',
        '{"$and": [query, {"lease.until_ms": {"$lt": int(__import__("time").time() * 1000)}}]},\n',
    ),
    bug(
        "claim ignores live leases",
        LEASES,
        '            {"$and": [query, FREE]},\n',
        "query,\n",
    ),
    bug("the fence does not rise", LEASES, '{"$add": ["$lease.fence", 1]}', '"$lease.fence"'),
    bug(
        "a released lease forgets its fence",
        LEASES,
        '{"lease.owner": "", "lease.until_ms": 0, "lease.unfinished": 0}',
        '{"lease.owner": "", "lease.until_ms": 0, "lease.unfinished": 0, "lease.fence": 0}',
    ),
    bug(
        "heartbeat never stops the work",
        "libs/eventbus/src/eventbus/heartbeat.py",
        "    os.killpg(orders.group, signal.SIGKILL)\n",
        "    await asyncio.sleep(3600)\n",
        f"{QUEUE_TEST}::test_the_heartbeat_keeps_the_lease_and_kills_the_work_when_it_is_lost",
    ),
    bug(
        "a child outlives its parent",
        "libs/chassis/src/chassis/children.py",
        "if os.getppid() != parent:",
        "if False:",
        "services/trainer/tests/test_fork_server.py::test_one_whose_worker_died_before_it_could_be_tied_to_it_does_nothing",
    ),
    bug(
        "what one holds another takes",
        LEASES,
        "{**query, **self.free_for(holder)}",
        "query",
        "libs/stores/tests/test_leases.py::test_who_holds_a_document_keeps_it_until_it_is_given_back_or_over",
    ),
    bug(
        "a page begins with what is in two pages",
        "libs/stores/src/stores/paging.py",
        "same = {name: last[name] for name, _ in order[:place]}",
        "same = {name: {'$exists': True} for name, _ in order[:place]}",
        "libs/stores/tests/test_paging.py::test_pages_follow_each_other_without_gap_or_repetition",
    ),
    # leased work
    bug(
        "a claim that nobody ends counts for nothing",
        LEASES,
        '{"$add": [{"$ifNull": ["$lease.unfinished", 0]}, 1]}',
        "0",
        f"{QUEUE_TEST}::test_a_worker_that_dies_counts_by_itself_and_one_that_gives_back_does_not",
    ),
    bug(
        "work goes on after its lease was lost",
        f"{WORK}/held.py",
        "            self._lost.set()\n",
        "            pass\n",
        f"{WORKER_TEST}::test_what_may_be_broken_off_is_when_the_lease_is_lost",
    ),
    bug(
        "a place is given for the sake of who had a later turn",
        f"{WORK}/queue.py",
        "return (await self._in_turn({*waiting, one.tenant_id}))[0] if waiting else None",
        "return next(iter(waiting), None)",
        f"{QUEUE_TEST}::test_a_place_is_given_only_where_it_goes_to_another_tenant",
    ),
    bug(
        "who stops while it claims keeps what it claimed",
        f"{WORK}/queue.py",
        "            await asyncio.shield(self._unclaim(claiming))\n",
        "",
        f"{QUEUE_TEST}::test_who_stops_while_it_claims_gives_back_what_it_claimed",
    ),
    bug(
        "work that begins anew keeps the failures of before",
        "libs/eventbus/src/eventbus/outbox.py",
        "anew = ANEW if aggregate.take_begins_anew() else {}",
        "anew = ANEW if False else {}",
        f"{QUEUE_TEST}::test_work_that_begins_anew_counts_anew_though_nobody_noted_that_it_had_ended",
    ),
    bug(
        "another service's conflict means that the work is another's",
        f"{WORK}/ends.py",
        "    if isinstance(error, WriteRefused):\n",
        '    if getattr(error, "code", "") in ("stale_fence", "stale_write", "wrong_state"):\n',
        f"{WORKER_TEST}::test_an_attempt_ends_in_one_way_and_is_counted_once",
    ),
    bug(
        "a run that was done before it could stop is thrown away",
        "services/trainer/src/trainer/training_process.py",
        'if self._halted == "queued" and code == 0 and self.last:',
        "if False:",
        f"{TRAINING}::test_a_run_that_was_done_before_it_could_stop_is_not_thrown_away",
    ),
    bug(
        "an outage counts against the work it meets",
        f"{WORK}/ends.py",
        "    if isinstance(error, (Transient, PyMongoError)):\n",
        "    if isinstance(error, PyMongoError):\n",
        f"{WORKER_TEST}::test_an_attempt_ends_in_one_way_and_is_counted_once",
    ),
    bug(
        "work that fails is tried for ever",
        f"{WORK}/worker.py",
        "        if failures >= self._policy.most_failures:\n",
        "        if failures > 9 * self._policy.most_failures:\n",
        f"{WORKER_TEST}::test_work_that_fails_again_and_again_is_given_up",
    ),
    bug(
        "a worker that stops keeps what it holds",
        f"{WORK}/worker.py",
        '                await asyncio.shield(self._give_back(one, Lost("stopped")))\n',
        "",
        f"{WORKER_TEST}::test_a_worker_that_stops_gives_its_work_back_uncounted",
    ),
    # trainer
    bug(
        "cancel ignored after training",
        "services/trainer/src/trainer/domain.py",
        "        self._expect(*CLAIMABLE)\n",
        '        self._expect(*CLAIMABLE, "cancelled")\n',
        STATES,
    ),
    bug(
        "an ended job succeeds",
        "services/trainer/src/trainer/domain.py",
        '"""Its model answers."""\n        if self.ended:\n            return\n',
        '"""Its model answers."""\n',
        STATES,
    ),
    bug(
        "an older word about a model is taken",
        "services/trainer/src/trainer/domain.py",
        'if self.state != "evaluating" or waiting.revision <= self.gate.revision:',
        'if self.state != "evaluating":',
        STATES,
    ),
    bug(
        "an upload's job has a random id",
        "services/trainer/src/trainer/use_cases.py",
        'id=derived_id("ftjob-", dataset.dataset_id)',
        'id=new_id("ftjob-")',
    ),
    bug(
        "a request fails after its job was stored",
        "services/trainer/src/trainer/use_cases.py",
        '        except (SartorError, PyMongoError) as error:\n            log.warning("job_begins_later"',
        '        except SartorError as error:\n            log.warning("job_begins_later"',
        "services/trainer/tests/test_service.py::test_a_stored_job_is_accepted_whatever_fails_afterwards",
    ),
    bug(
        "every checkpoint is kept while a job runs",
        "services/trainer/src/trainer/training_process.py",
        "        await self._objects.delete_older_checkpoints(job)\n",
        "",
        f"{TRAINING}::test_the_last_two_checkpoints_are_kept_and_none_once_the_adapter_is_stored",
    ),
    bug(
        "a long job keeps others waiting",
        "services/trainer/src/trainer/training_process.py",
        'job.state == "running" and await self._held.others_wait():',
        "False:",
        f"{TRAINING}::test_a_long_job_gives_its_place_to_a_tenant_who_waits_and_goes_on_where_it_was",
    ),
    bug(
        "a page of tasks passes over one of those that share a position",
        "services/labeling/src/labeling/store.py",
        'IN_ORDER = [("position", 1), ("_id", 1)]',
        'IN_ORDER = [("position", 1)]',
        f"{LABELING_TEST}::test_tasks_that_were_skipped_at_once_are_all_on_some_page",
    ),
    bug(
        "a service's clock outlives it",
        "libs/runtime/src/runtime/service.py",
        "            CLOCK.reset(before)\n",
        "            pass\n",
        "services/registry/tests/test_use_cases.py::test_a_services_clock_is_its_own_and_goes_with_it",
    ),
    bug(
        "the word of a parser's error is written outside of what names a full disk",
        f"{INGEST}/parse.py",
        """            try:
                leave_result(folder)
            except Exception as error:  # the boundary: what is left of it is its place, and nothing of the file
                write_fault(folder, error)
                raise
    except Exhausted as error:
        return error.exit_code
""",
        """            leave_result(folder)
    except Exhausted as error:
        return error.exit_code
    except Exception as error:
        write_fault(folder, error)
        raise
""",
        f"{INGEST_WORKER}::test_a_parser_that_finds_no_room_for_the_word_of_its_error_is_no_fault_of_the_file",
    ),
    bug(
        "a place is given where another tenant has work, whoever's turn it is",
        f"{WORK}/queue.py",
        "self._in_turn({*waiting, one.tenant_id})",
        "self._in_turn(waiting)",
    ),
    bug(
        "a late attempt deletes what the next one stores",
        "services/trainer/src/trainer/job_objects.py",
        "int(attempt[1]) <= job.lease.fence",
        "int(attempt[1]) > 0",
        f"{TRAINING}::test_what_a_later_attempt_stores_is_left_alone",
    ),
    bug(
        "a repeated request makes another job",
        "services/trainer/src/trainer/use_cases.py",
        'id=request_id_for("ftjob-", new_id("ftjob-"))',
        'id=new_id("ftjob-")',
    ),
    bug(
        "a job is done before its adapter is stored",
        "services/trainer/src/trainer/job_objects.py",
        """            if path.name != MANIFEST:
                await self._objects.put_file(f"{prefix}/{path.name}", path)
""",
        """            if path.name == MANIFEST:
                await self._objects.put_file(f"{prefix}/{path.name}", path)
""",
    ),
    bug(
        "a checkpoint's hash is not checked",
        "services/trainer/src/trainer/run/checkpoints.py",
        'if sha256(folder / name) != file["sha256"]:',
        'if file["sha256"] == "":',
        "services/trainer/tests/test_lora.py::test_a_damaged_or_foreign_checkpoint_is_refused",
    ),
    bug(
        "a checkpoint is seen before its manifest",
        "services/trainer/src/trainer/run/checkpoints.py",
        'draft = target.with_name(f".{target.name}.draft")',
        "draft = target",
        "services/trainer/tests/test_lora.py::test_no_checkpoint_is_seen_before_its_manifest",
    ),
    bug(
        "downloads are not checked",
        "libs/stores/src/stores/objects.py",
        "if digest.hexdigest() != ref.sha256:",
        'if ref.sha256 == "":',
        "libs/stores/tests/test_objects.py::test_changed_bytes_are_refused",
    ),
    bug(
        "training outlives its service",
        "services/trainer/src/trainer/app.py",
        "    service.on_stop(fork_server.close)\n",
        "",
        f"{TRAINING}::test_what_runs_are_forked_from_ends_with_the_service",
    ),
    # evaluator
    bug(
        "four gains without a loss pass",
        "services/evaluator/src/evaluator/comparison.py",
        "return self.interval.low > 0 and self.p_value <= ALPHA",
        "return self.interval.low > 0",
        "services/evaluator/tests/test_verdict.py",
    ),
    bug(
        "an answer of weight 0 is a reference",
        "services/evaluator/src/evaluator/rows.py",
        "learned = [place for place in answers if weights[place] != 0]",
        "learned = answers",
        "services/evaluator/tests/test_rows.py",
    ),
    bug(
        "macro means weigh classes that no row of a resample wants",
        f"{METRICS}/classes.py",
        "wanted = summed[WANTED] > 0",
        "wanted = summed[WANTED] >= 0",
        f"{METRICS_TEST}::test_rows_that_want_none_of_a_class_say_nothing_of_it",
    ),
    bug(
        "BLEU is the mean of each answer's own",
        f"{METRICS}/metric.py",
        "self.value(counts[list(places)].sum(axis=0))",
        "float(np.mean([self.value(one) for one in counts[list(places)]]))",
        f"{METRICS_TEST}::test_a_metric_of_a_set_has_an_interval_that_narrows_with_the_rows",
    ),
    bug(
        "a judge is asked again for what it has answered",
        "services/evaluator/src/evaluator/use_cases.py",
        "if metric.key not in answer.scores",
        "if metric.key",
        "services/evaluator/tests/test_suites.py"
        "::test_a_score_that_was_waited_for_is_asked_for_once_however_many_attempts_there_are",
    ),
    bug(
        "a judge is asked about every answer at once",
        "services/evaluator/src/evaluator/use_cases.py",
        "            async with self._places:\n",
        "            if True:\n",
        "services/evaluator/tests/test_suites.py::test_scores_are_waited_for_so_many_at_a_time",
    ),
    bug(
        "the scores of another judge are taken for this one's",
        "services/evaluator/src/evaluator/metrics/metric.py",
        '        return f"{self.name}_{hashlib.sha256(self.definition.encode()).hexdigest()[:16]}"\n',
        "        return self.name\n",
        "services/evaluator/tests/test_suites.py::test_a_judge_that_is_another_than_before_judges_every_answer_itself",
    ),
    # registry and serving
    bug(
        "promotion without a replica",
        "services/registry/src/registry/domain.py",
        "if self.promotion is None or not held or",
        "if self.promotion is None or",
    ),
    bug(
        "a replica heard of again promotes nothing",
        "services/registry/src/registry/use_cases.py",
        'if model.waiting_for == "replica" and',
        'if model.waiting_for == "nobody" and',
        f"{REPLICAS}::test_a_replica_that_fell_silent_promotes_nothing",
    ),
    bug(
        "a silent replica's word promotes",
        "services/registry/src/registry/use_cases.py",
        "            model.trust(one.replica_id for one in proven)\n",
        "            model.trust(one.replica_id for one in (*proven, *model.replicas))\n",
        f"{REPLICAS}::test_a_replica_that_fell_silent_promotes_nothing",
    ),
    Planted(
        "a model is promoted where its base is not",
        (
            Edit(
                "services/registry/src/registry/store.py",
                '"ready.base_digest": {"$in": digests}}',
                '"ready.base_digest": {"$exists": True}}',
            ),
            Edit(
                "services/registry/src/registry/store.py",
                "            if len(proven) == 1 and (base := proven.pop()) in found:\n",
                "            for base in found:\n",
            ),
        ),
        f"{REGISTRY}::test_a_model_is_not_promoted_on_the_word_of_a_replica_that_has_another_base",
    ),
    bug(
        "the gate decides twice",
        "services/registry/src/registry/domain.py",
        'if self.state != "candidate" or self.evaluation is not None:',
        'if self.state in ("rejected", "retired"):',
    ),
    bug(
        "a failed evaluation is promoted",
        "services/registry/src/registry/domain.py",
        'if gate == "advisory" or (gate == "auto" and completed.verdict == "pass"):',
        'if gate in ("advisory", "auto"):',
    ),
    bug(
        "nobody hears that a person is waited for",
        "services/registry/src/registry/domain.py",
        "            self._say_waiting(completed.reason)\n",
        "",
        "services/registry/tests/test_gate.py",
    ),
    bug(
        "a base is routed to a replica of another base",
        "services/registry/src/registry/store.py",
        "if len(proven) == 1 and (base := proven.pop()) in found:",
        "if proven and (base := next(iter(found))):",
        f"{REGISTRY}::test_an_address_at_which_two_bases_were_proven_is_nobodys",
    ),
    bug(
        "a silent replica stays on a base's route",
        "services/registry/src/registry/store.py",
        'return {"$expr": {"$lt": [since, "$heard_ms"]}}',
        'return {"heard_ms": {"$exists": bool(since)}}',
        f"{REPLICAS}::test_a_base_model_is_not_routed_to_a_replica_that_fell_silent",
    ),
    bug(
        "a registry that starts routes to the dead",
        "services/registry/src/registry/store.py",
        "since = self._last_heard_ms - self._silent_ms",
        "since = -1",
        f"{REPLICAS}::test_a_registry_that_starts_routes_to_none_that_was_silent_before",
    ),
    bug(
        "an event that is handed over again brings the dead to life",
        "services/registry/src/registry/store.py",
        'await self._replicas.update_one(own, [{"$set": {"said_ms": SERVER_MS}}])',
        'await self._replicas.update_one(own, [{"$set": {"said_ms": SERVER_MS, "heard_ms": SERVER_MS}}])',
        f"{REPLICAS}::test_an_event_that_is_handed_over_again_brings_nobody_back_to_life",
    ),
    bug(
        "what the registry lost of a replica is said by its next start only",
        "libs/serving/src/serving/announcing.py",
        "if time.monotonic() < self._ready_at + AGAIN_SECONDS:",
        "if self._ready_at > 0:",
        f"{REPLICAS}::test_a_base_whose_replicas_the_database_lost_answers_again_by_itself",
    ),
    bug(
        "an engine that cannot echo is routed to with what it lost",
        "libs/serving/src/serving/residency.py",
        "self._may_live = await self._nothing_is_lost()",
        "self._may_live = await self._nothing_is_lost() or True",
        f"{RESIDENCY}::test_an_engine_that_cannot_echo_lives_once_it_is_known_what_it_lost",
    ),
    bug(
        "a broker that is away silences a replica",
        "libs/serving/src/serving/residency.py",
        "            self._broker_away = True\n",
        "            raise\n",
        f"{RESIDENCY}::test_a_broker_that_is_away_silences_nobody_and_hears_all_later",
    ),
    bug(
        "the base answers before it is proven",
        "services/model_server/src/model_server/api.py",
        "if not engine.proven:",
        "if engine.proven is None:",
        "services/model_server/tests/test_model_server_service.py"
        "::test_nobody_is_answered_with_weights_that_are_not_the_bases",
    ),
    bug(
        "who had a new replica's address is asked on",
        "services/inference_proxy/src/inference_proxy/routing.py",
        'stays = same_base if name == event.replica_id else replica.replica_url.rstrip("/") != url',
        "stays = same_base or name != event.replica_id or not url",
        "services/inference_proxy/tests/test_routing.py::test_who_had_the_address_of_a_new_replica_is_asked_no_more",
    ),
    bug(
        "an adapter is routed to a replica that has another base now",
        "services/registry/src/registry/use_cases.py",
        "both = [proved_base[one.replica_id] for one in model.replicas if one.replica_id in proved_base]",
        "both = [one for one in model.replicas if one.replica_id or proved_base]",
        f"{REGISTRY}::test_a_replica_that_has_another_base_now_answers_for_no_adapter_of_the_one_before",
    ),
    bug(
        "an engine's echo is not compared",
        "services/inference_proxy/src/inference_proxy/engines/tgi.py",
        "if echoed == wanted or (echoed is None and not target.echoes):",
        "if echoed or wanted is None or (echoed is None and not target.echoes):",
        f"{ECHO}::test_another_base_never_answers",
    ),
    bug(
        "a declared echo may be missing",
        "services/inference_proxy/src/inference_proxy/engines/tgi.py",
        "if echoed == wanted or (echoed is None and not target.echoes):",
        "if echoed in (wanted, None):",
        f"{ECHO}::test_an_engine_that_declares_an_echo_never_answers_without_it",
    ),
    bug(
        "the engine answers who asks for another base",
        "services/model_server/src/model_server/api.py",
        'if digest not in ("", engine.base.digest):',
        "if digest is None:",
        "services/model_server/tests/test_model_server_service.py::test_the_engine_holds_what_the_registry_wants",
    ),
    bug(
        "a replica that cannot prove its base goes on",
        "libs/serving/src/serving/residency.py",
        "        await self._host.attest()\n",
        "",
        f"{RESIDENCY}::test_who_cannot_prove_its_base_says_nothing_and_asks_for_nothing",
    ),
    bug(
        "TGI is believed for ever",
        "services/serving_agent/src/serving_agent/hosts/tgi.py",
        "if self.proofs and time.monotonic() >=",
        "if not self.proofs and time.monotonic() >=",
        "services/serving_agent/tests/test_tgi_host.py::test_an_adapter_that_tgi_forgot_is_found_and_let_go_of",
    ),
    bug(
        "whatever goes wrong with an adapter is final",
        "libs/serving/src/serving/failures.py",
        "failure.permanent = may_be_final and isinstance(error, FINAL)",
        "failure.permanent = may_be_final and not isinstance(error, SartorError)",
        f"{RESIDENCY}::test_what_is_not_the_adapters_fault_is_tried_again_told_and_forgotten_once_it_is_loaded",
    ),
    bug(
        "a server that does not start refuses its adapters",
        "libs/serving/src/serving/failures.py",
        "failure.permanent = may_be_final and isinstance(error, FINAL)",
        "failure.permanent = isinstance(error, FINAL)",
        f"{RESIDENCY}::test_a_host_that_cannot_make_ready_is_told_for_each_adapter_and_refuses_none",
    ),
    bug(
        "nobody hears that a failing adapter is refused now",
        "libs/serving/src/serving/failures.py",
        "        failure.told = failure.told and failure.permanent == was_permanent\n",
        "",
        f"{RESIDENCY}::test_that_an_adapter_is_refused_for_good_is_told_after_it_was_told_to_be_tried_again",
    ),
    bug(
        "an owner reads the replica's folders",
        "libs/serving/src/serving/failures.py",
        'return f"The replica could not load it ({type(error).__name__})."',
        'return f"{type(error).__name__}: {error}"',
        f"{RESIDENCY}::test_the_owner_is_told_what_is_meant_for_people_and_the_log_keeps_the_rest",
    ),
    bug(
        "an adapter that keeps failing keeps its place",
        "libs/serving/src/serving/residency.py",
        "oldest_first = [one for one in wanted if one not in refused and one not in failing]",
        "oldest_first = [one for one in wanted if one not in refused]",
        f"{RESIDENCY}::test_adapters_that_keep_failing_take_no_room_from_others",
    ),
    bug(
        "looking for an adapter is an attempt",
        "services/evaluator/src/evaluator/domain.py",
        "self.attempts = self.lease.failures",
        "self.attempts = self.lease.attempts",
        "services/evaluator/tests/test_evaluator_service.py::test_an_adapter_that_never_comes_is_left_to_a_person",
    ),
    bug(
        "adapter manifest unchecked",
        "libs/serving/src/serving/attestation.py",
        "if expected is None or hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected.sha256:",
        "if expected is None:",
        "libs/serving/tests/test_attestation.py::test_a_file_that_is_another_than_the_manifest_says_is_refused",
    ),
    bug(
        "padding stands inside a shared beginning",
        "services/model_server/src/model_server/groups.py",
        "places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, :shared]",
        "places = torch.arange(shared).expand(len(taken), -1)",
        "services/model_server/tests/test_engine.py::test_log_probabilities_do_not_depend_on_company",
    ),
    bug(
        "half a character is shown at the end",
        "services/model_server/src/model_server/sequence.py",
        'text = "" if special else self._characters.decode(own)',
        'text = "" if special else self._characters.decode(own, len(self._ids) >= self._most)',
        "services/model_server/tests/test_text.py::test_every_character_of_every_script_comes_out_at_any_limit",
    ),
    bug(
        "a special token shows as text",
        "services/model_server/src/model_server/sequence.py",
        'text = "" if special else self._characters.decode(own)',
        "text = self._characters.decode(own)",
        "services/model_server/tests/test_text.py::test_a_special_token_inside_an_answer_never_shows",
    ),
    bug(
        "an answer is computed for nobody",
        "libs/chassis/src/chassis/hang_ups.py",
        "return_when=asyncio.FIRST_COMPLETED",
        "return_when=asyncio.ALL_COMPLETED",
        "libs/chassis/tests/test_hang_ups.py::test_work_ends_where_the_client_hangs_up",
    ),
    bug(
        "nobody watches over a stream before its first token",
        "services/model_server/src/model_server/api.py",
        "first = await unless_gone(request, anext(stream))",
        "first = await anext(stream)",
        "services/model_server/tests/test_sampling.py"
        "::test_a_streamed_request_whose_caller_leaves_the_queue_is_never_computed",
    ),
    bug(
        "metadata that cannot be kept is taken",
        "libs/chassis/src/chassis/bodies.py",
        ", AfterValidator(_without_nul)]",
        "]",
        "libs/chassis/tests/test_bodies.py::test_metadata_that_cannot_be_kept_is_refused_by_its_key",
    ),
    bug(
        "a label that races a delete stays",
        "services/inference_proxy/src/inference_proxy/domain.py",
        "        self._must_be_stored()\n        self.metadata = metadata\n",
        "        self.metadata = metadata\n",
        "services/inference_proxy/tests/test_fields.py::test_a_change_that_comes_after_a_delete_leaves_nothing",
    ),
    bug(
        "prompts are read before they are judged",
        "services/model_server/src/model_server/engine.py",
        "if fewest >= self.max_tokens:",
        "if fewest >= 2**31:",
        "services/model_server/tests/test_sampling.py::test_prompts_no_context_can_hold_are_refused_before_they_are_read",
    ),
    bug(
        "log-probabilities of what a stop cut off",
        "services/inference_proxy/src/inference_proxy/answers.py",
        "lambda token: token.offset < len(self.text)",
        "lambda token: token.offset <= len(self.text)",
        "services/inference_proxy/tests/test_text.py::test_a_streamed_answer_says_what_a_whole_one_says",
    ),
    bug(
        "the stops of chat end a raw completion",
        "services/inference_proxy/src/inference_proxy/rendering.py",
        "for one in asked.prompts for _ in range(asked.choices)])",
        "for one in asked.prompts for _ in range(asked.choices)], base.stop_tokens)",
        "services/inference_proxy/tests/test_text.py::test_the_stops_of_chat_do_not_end_a_raw_completion",
    ),
    bug(
        "a penalty is taken and ignored",
        "services/inference_proxy/src/inference_proxy/engines/tgi.py",
        "        presence_penalty=sampling.presence_penalty or None,\n",
        "",
        "services/inference_proxy/tests/test_fields.py::test_a_field_does_what_it_says",
    ),
    bug(
        "one choice fails and the others go on",
        "services/inference_proxy/src/inference_proxy/answering.py",
        "                async with asyncio.TaskGroup() as group:\n"
        "                    for index in range(len(answer.prompts)):\n"
        "                        group.create_task(self._exhaust(answer, index))\n",
        "                every = (self._exhaust(answer, index) for index in range(len(answer.prompts)))\n"
        "                await asyncio.gather(*every)\n",
        "services/inference_proxy/tests/test_fields.py::test_where_one_choice_fails_the_others_end_and_are_counted",
    ),
    bug(
        "score: a text is read with the adapter of another",
        "services/model_server/src/model_server/scoring.py",
        "self._plan.uses = uses_of(taken)",
        "self._plan.uses = uses_of(taken[:1])",
        "services/model_server/tests/test_scoring.py::test_each_text_is_scored_by_its_own_adapter_whatever_its_company",
    ),
    bug(
        "score: the first token of an echo has a log-probability",
        "services/inference_proxy/src/inference_proxy/answers.py",
        '"token_logprobs": [None if token.first else token.piece.logprob or 0.0 for token in tokens],',
        '"token_logprobs": [token.piece.logprob or 0.0 for token in tokens],',
        "services/inference_proxy/tests/test_echo.py::test_a_text_is_told_with_what_each_of_its_tokens_is_worth",
    ),
    bug(
        "candidates: an end user who names one is answered by it",
        "services/inference_proxy/src/inference_proxy/routing.py",
        'key: Key = (principal.tenant_id, model, "production")',
        'key: Key = (principal.tenant_id, model, "version")',
        f"{CANDIDATES}::test_only_a_service_for_itself_may_name_a_candidate",
    ),
    bug(
        "candidates: whoever comes through the console may name one",
        "services/inference_proxy/src/inference_proxy/admission.py",
        'if principal.user_id is not None or principal.key_id != f"{OF_SERVICE}{principal.caller}":',
        "if principal.caller is None:",
        f"{CANDIDATES}::test_only_a_service_for_itself_may_name_a_candidate",
    ),
    bug(
        "candidates: tests take the places of people",
        "services/inference_proxy/src/inference_proxy/app.py",
        "EvaluationAdmission(routes, tests)",
        "EvaluationAdmission(routes, in_flight)",
        f"{CANDIDATES}::test_tests_are_nobodys_chats_and_count_against_nobodys_limits",
    ),
    bug(
        "candidates: another adapter is judged in its place",
        "services/evaluator/src/evaluator/use_cases.py",
        'if given.adapter_id != (evaluation.adapter_id if system == "candidate" else None):',
        "if not given:",
        f"{EVALUATOR_TEST}::test_a_candidate_that_is_answered_for_by_another_adapter_is_left_to_a_person",
    ),
    bug(
        "candidates: a proxy that is away costs an attempt",
        "services/evaluator/src/evaluator/worker.py",
        "raise PutOff(await self._evaluate.wait(one, error), error.message) from error",
        "raise Failed(error) from error",
        f"{EVALUATOR_TEST}::test_while_the_proxy_is_away_an_evaluation_is_put_off_and_counts_nothing",
    ),
    bug(
        "candidates: a full stop that is answered ends the wait",
        "services/evaluator/src/evaluator/use_cases.py",
        "                await self._proxy.expect(evaluation.tenant_id, model)\n",
        "                await self._proxy.expect(evaluation.tenant_id, model)\n"
        "            evaluation = await self._evaluations.write(evaluation, Evaluation.find_adapter)\n",
        f"{EVALUATOR_TEST}::test_a_wait_that_no_answer_ends_is_one_wait_however_often_the_shortest_question_is_answered",
    ),
    bug(
        "candidates: a question that takes too long is put off",
        "services/evaluator/src/evaluator/proxy.py",
        "if isinstance(failure, (NotFound, RateLimited, Unreachable)) or failure.code == LOADING:",
        "if failure.code != BROKEN:",
        "services/evaluator/tests/test_proxy.py::test_an_answer_that_takes_too_long_counts_and_is_not_waited_for_again",
    ),
    bug(
        "candidates: a test that is given up cost nothing",
        "services/evaluator/src/evaluator/use_cases.py",
        "cost = price(await self._answers.of(evaluation))",
        "cost = None",
        f"{EVALUATOR_TEST}::test_what_was_answered_of_a_test_that_is_given_up_has_its_cost",
    ),
    bug(
        "candidates: texts are counted in no place",
        "services/inference_proxy/src/inference_proxy/answering.py",
        "with self._admission.entered(principal):\n            async with aclosing(self._asked(",
        "if True:\n            async with aclosing(self._asked(",
        f"{CANDIDATES}::test_texts_are_counted_in_as_many_places_as_there_are_for_tests",
    ),
    bug(
        "a prompt is scored for each of its choices",
        "services/inference_proxy/src/inference_proxy/answering.py",
        "        if scoring.worth is None:\n",
        "        if True:\n",
        "services/inference_proxy/tests/test_echo.py::test_choices_of_one_prompt_have_it_scored_once",
    ),
    bug(
        "failover: what a client heard the beginning of is answered again",
        "services/inference_proxy/src/inference_proxy/answering.py",
        "if begun or other is None:",
        "if other is None:",
        "services/inference_proxy/tests/test_failover.py"
        "::test_a_replica_that_dies_in_the_middle_of_a_word_is_not_covered_up",
    ),
    bug(
        "failover: a replica that failed is asked in its turn as before",
        "services/inference_proxy/src/inference_proxy/routing.py",
        "self._avoided[failed.replica_id] = now + AVOIDED_SECONDS",
        "self._avoided[failed.replica_id] = now",
        "services/inference_proxy/tests/test_failover.py"
        "::test_where_one_replica_has_another_base_the_other_answers_and_it_is_left_alone",
    ),
    bug(
        "a provider's answer without an end passes for whole",
        f"{ENGINES}/openai_stream.py",
        '        if self._finish_reason is None:\n            raise AnswerBroken("the stream',
        '        if False:\n            raise AnswerBroken("the stream',
        f"{PROVIDERS}::test_an_answer_that_breaks_off_never_looks_complete",
    ),
    bug(
        "a provider's answer goes on for ever",
        f"{ENGINES}/openai_stream.py",
        "asyncio.timeout_at(deadline)",
        "asyncio.timeout(None)",
        f"{PROVIDERS}::test_an_answer_takes_no_longer_than_it_may",
    ),
    bug(
        "a provider's answer is as long as it likes",
        f"{ENGINES}/openai_stream.py",
        "            if self._length > MOST_CHARACTERS:\n",
        "            if False:\n",
        f"{PROVIDERS}::test_an_answer_that_does_not_end_is_ended",
    ),
    bug(
        "a provider's counts are believed whatever they are",
        f"{ENGINES}/openai_stream.py",
        "Count = Annotated[int, Field(ge=0, le=MOST_TOKENS)]",
        "Count = int",
        f"{PROVIDERS}::test_nobody_is_charged_what_cannot_be",
    ),
    bug(
        "a provider's log-probability is no number",
        f"{ENGINES}/openai_stream.py",
        "ConfigDict(allow_inf_nan=False)",
        "ConfigDict()",
        f"{PROVIDERS}::test_a_log_probability_that_is_no_number_is_not_told",
    ),
    bug(
        "who leaves before the first word pays nothing",
        "services/inference_proxy/src/inference_proxy/answers.py",
        "        self.prompt_tokens = accepted.prompt_tokens\n",
        "        self.prompt_tokens = 0 * accepted.prompt_tokens\n",
        f"{PROVIDERS}::test_a_client_that_leaves_before_the_first_word_leaves_the_providers_queue_and_is_charged",
    ),
    bug(
        "a provider that is not paid is told as busy",
        f"{ENGINES}/openai.py",
        '"unpaid" if UNPAID & {code, kind} else REFUSED_US.get(status)',
        "REFUSED_US.get(status)",
        f"{PROVIDERS}::test_what_a_provider_refuses_is_told_to_whom_it_concerns",
    ),
    bug(
        "a model whose base became a provider's asks nothing of nobody",
        "services/inference_proxy/src/inference_proxy/routing.py",
        "        if there != here:\n",
        "        if False:\n",
        f"{PROVIDERS}::test_a_model_whose_base_became_a_providers_does_not_answer",
    ),
    bug(
        "weights beside a provider's description are seen at its next change only",
        "services/registry/src/registry/catalogue.py",
        "        return [path for path in of_providers if path not in beside]\n",
        "        return of_providers\n",
        "services/registry/tests/test_catalogue.py",
    ),
    bug(
        "a service that has no database any more keeps its user",
        "infra/provision/src/provision/mongodb.py",
        '            admin.command("dropUser", name)\n',
        "            pass\n",
        "infra/provision/tests/test_provision.py::test_a_service_that_has_no_database_any_more_has_no_user_either",
    ),
    bug(
        "a provider's key is told to whom it refuses",
        f"{ENGINES}/openai.py",
        'return text.replace(key, "[key]") if key else text',
        "return text",
        f"{PROVIDERS}::test_a_field_that_a_provider_refuses_is_named",
    ),
    bug(
        "a user is told that the operator's key is wrong",
        f"{ENGINES}/openai.py",
        "        return EngineAway(retry_after=None)\n",
        '        return __import__("chassis.errors").errors.Unauthenticated(message)\n',
        f"{PROVIDERS}::test_what_a_provider_refuses_is_told_to_whom_it_concerns",
    ),
    bug(
        "what a provider lacks is taken and ignored",
        f"{ENGINES}/openai.py",
        "        return [name for name in wanted if name not in lacks]",
        "        return wanted",
        f"{PROVIDERS}::test_a_field_is_sent_or_refused_by_name",
    ),
    bug(
        "a provider's model counts as one with weights",
        "services/registry/src/registry/catalogue.py",
        "return [base.spec for base in self.all() if isinstance(base.spec, BaseModelSpec)]",
        "return [base.spec for base in self.all()]",
        f"{REGISTRY}::test_a_providers_model_is_a_base_model_without_weights",
    ),
    bug(
        "a route is not believed while the registry is away",
        "libs/chassis/src/chassis/believed.py",
        "if known is None or not usable or self._answers.get(key) is not known:",
        "if known is not None:",
        "services/inference_proxy/tests/test_neighbours_away.py::test_what_was_seen_is_answered_and_what_ended_is_not",
    ),
    bug(
        "a change of one answer lets no other be believed",
        "libs/chassis/src/chassis/believed.py",
        "self._note(lambda asked, _: asked == key)",
        "self._note(lambda *_: True)",
        "libs/chassis/tests/test_believed.py::test_what_changes_elsewhere_leaves_an_answer_fresh",
    ),
    bug(
        "a replica less ends the whole route",
        "services/inference_proxy/src/inference_proxy/routing.py",
        "return replace(self, replicas=left) if left else None",
        "return None",
        "services/inference_proxy/tests/test_routing.py"
        "::test_a_replica_without_the_adapter_is_asked_no_more_and_the_others_are",
    ),
    bug(
        "replicas: one replica of the proxy hears that a route is over, and the others go on",
        "services/inference_proxy/src/inference_proxy/app.py",
        "    service.bus.watch(watched(routes))",
        "    service.bus.subscribe(watched(routes))",
        f"{TWO_PROXIES}::test_both_replicas_hear_that_a_key_and_a_route_are_over",
    ),
    bug(
        "replicas: each replica grants the limits for itself",
        SHARED_LIMITS,
        "            self._limiter.learn(await self._count(used))",
        "            await self._count(used)",
        f"{TWO_PROXIES}::test_what_one_replica_let_through_is_not_granted_again_by_the_other",
    ),
    bug(
        "replicas: what is used while replicas exchange their counts is forgotten",
        "libs/chassis/src/chassis/limits.py",
        "bucket.level, bucket.at = level - bucket.untold, now",
        "bucket.level, bucket.at = level, now",
        "libs/stores/tests/test_shared_limits.py::test_what_is_used_during_an_exchange_is_not_forgotten",
    ),
    bug(
        "accounts: an empty file revokes every key of the operator",
        "services/accounts/src/accounts/settings.py",
        "        if not found:\n",
        "        if False:\n",
        "services/accounts/tests/test_service.py::test_a_file_without_an_operator_key_revokes_none",
    ),
    bug(
        "replicas: who has not heard of a higher limit cuts what all have left",
        SHARED_LIMITS,
        '"limit": {"$cond": [higher, "$limit", limit]},',
        '"limit": limit,',
        "libs/stores/tests/test_shared_limits.py"
        "::test_who_believes_a_lower_limit_takes_nothing_from_who_heard_of_the_higher",
    ),
    bug(
        "replicas: a replica that was idle grants a limit anew for as long as it tells nothing",
        "libs/chassis/src/chassis/limits.py",
        "                self.stale.set()\n",
        "                pass\n",
        "libs/stores/tests/test_shared_limits.py"
        "::test_a_replica_that_knows_nothing_asks_at_its_first_use_and_grants_until_it_is_answered",
    ),
    bug(
        "replicas: what another replica was told is told again",
        "libs/chassis/src/chassis/limits.py",
        "            bucket.untold = 0.0\n",
        "",
        "libs/stores/tests/test_shared_limits.py::test_nothing_is_told_twice_and_what_counts_differently_lies_apart",
    ),
    bug(
        "replicas: a question to a replica that dies is asked of no other",
        "libs/chassis/src/chassis/peers.py",
        'self.request("POST", path, *ids, again=1, **kwargs)',
        'self.request("POST", path, *ids, **kwargs)',
        "libs/chassis/tests/test_peers.py::test_what_changes_nothing_is_asked_of_another_replica",
    ),
    bug(
        "replicas: a change is sent again to another replica",
        "libs/chassis/src/chassis/peers.py",
        'self.request("POST", path, *ids, **kwargs)',
        'self.request("POST", path, *ids, again=1, **kwargs)',
        "libs/chassis/tests/test_peers.py::test_nothing_is_asked_more_often_than_that",
    ),
    bug(
        "replicas: the ingress asks a replica that is gone and no other",
        "infra/local/src/localstack/ingress.py",
        '"lb_retries 10", ',
        "",
        "infra/local/tests/test_scale.py::test_requests_are_shared_and_a_replica_that_is_gone_is_not_heard",
    ),
    bug(
        "replicas: a request that kills its process is taken to every replica",
        "infra/local/src/localstack/ingress.py",
        "{http.regexp.again.0} == null",
        "method('GET')",
        "infra/local/tests/test_scale.py::test_a_request_that_breaks_every_replica_breaks_two",
    ),
    bug(
        "replicas: what was answered is asked again",
        "infra/local/src/localstack/ingress.py",
        "{http.reverse_proxy.is_transport_error} == true",
        "true",
        "infra/local/tests/test_scale.py::test_a_request_that_is_answered_is_asked_once",
    ),
    bug(
        "a revoked key is believed while accounts is away",
        "libs/chassis/src/chassis/auth.py",
        "        self._known.forget(key_hash)\n        self.end(key_hash, REVOKED)\n",
        "        self._known.doubt(lambda one, _: one == key_hash)\n",
        "libs/chassis/tests/test_auth.py::test_a_revoked_key_is_refused_though_accounts_is_away",
    ),
    bug(
        "keys: a replaced secret holds beyond its grace",
        KEY_RULES,
        "if before is not None and before <= at:",
        "if before is not None and before < 0:",
        f"{ROTATION}::test_a_secret_holds_for_its_grace_to_the_second",
    ),
    bug(
        "keys: a replaced secret that is believed holds beyond its grace",
        "libs/chassis/src/chassis/auth.py",
        "if ends_at <= wall():",
        "if ends_at < 0:",
        "libs/chassis/tests/test_auth.py::test_a_replaced_key_ends_to_the_second_though_it_was_believed",
    ),
    bug(
        "keys: no service hears of a rotation",
        "libs/runtime/src/runtime/service.py",
        "        self.authenticator.end(event.key_hash, event.ends_at)\n",
        "        del event\n",
        f"{ROTATION}::test_without_a_grace_the_old_secret_ends_at_once",
    ),
    bug(
        "keys: an end that was said is put off",
        "libs/chassis/src/chassis/auth.py",
        "self._ends[key_hash] = min(at, self._ends.get(key_hash, at))",
        "self._ends[key_hash] = at",
        "libs/chassis/tests/test_auth.py::test_a_replaced_key_ends_to_the_second_though_it_was_believed",
    ),
    bug(
        "keys: a limited key takes over one that may use more",
        "services/accounts/src/accounts/use_cases/keys.py",
        "if own is not None and not own.could_make(key):",
        "if False:",
        f"{ROTATION}::test_nobody_gets_rights_by_rotating",
    ),
    bug(
        "keys: the new secret may do more",
        "services/accounts/src/accounts/use_cases/keys.py",
        "        check_grant(maker, key.role, key.scopes)\n        if key.user_id",
        "        if key.user_id",
        f"{ROTATION}::test_nobody_gets_rights_by_rotating",
    ),
    bug(
        "keys: a replaced secret asks for another one",
        "services/accounts/src/accounts/use_cases/keys.py",
        "        elif maker.key_hash != key.key_hash and rotation != key.rotation:",
        "        elif False:",
        f"{ROTATION}::test_nobody_gets_rights_by_rotating",
    ),
    bug(
        "keys: a key whose secret is made once more is told of as revoked",
        "services/accounts/src/accounts/domain/keys.py",
        "self.record(KeyRotated(tenant_id=self.tenant_id, key_id=self.id, key_hash=self.key_hash, ends_at=at))",
        "self.record(KeyRevoked(tenant_id=self.tenant_id, key_id=self.id, key_hash=self.key_hash))",
        f"{ROTATION}::test_a_secret_that_reached_nobody_ends_alone_and_its_key_lives_on",
    ),
    bug(
        "keys: a revoked key is believed by its former secret",
        KEY_RULES,
        "for key_hash in (self.key_hash, *holding):",
        "for key_hash in (self.key_hash,):",
        f"{ROTATION}::test_a_revoked_key_ends_with_every_secret",
    ),
    bug(
        "tokens: the key before is not accepted while one is replaced",
        "libs/chassis/src/chassis/tokens.py",
        "        *others, last = self._public\n",
        "        others, last = [], self._public[0]\n",
        "libs/chassis/tests/test_auth.py::test_what_either_key_of_a_service_signed_is_accepted_while_one_is_replaced",
    ),
    bug(
        "sbom: an image does not say which torch it has",
        "infra/docker/sbom.py",
        'yield f"{image}-{torch}", image, project, [lock, lock.with_name(f"torch_{torch}.txt")]',
        'yield f"{image}-{torch}", image, project, [lock]',
        "tests/contract/test_sbom.py::test_a_licence_is_told_in_the_packages_own_words",
    ),
    bug(
        "sbom: a build that has another version than its lock says the lock's",
        "infra/docker/sbom.py",
        "for name, version in installed - named if",
        "for name, version in installed if name not in {one for one, _ in named} and",
        "tests/contract/test_sbom.py::test_a_build_ends_where_something_is_installed_that_no_lock_names",
    ),
    bug(
        "sbom: a build calls its image otherwise than the rest",
        "infra/docker/sbom.py",
        "bom(Path(), image_name(asked.image),",
        "bom(Path(), asked.image,",
        "tests/contract/test_sbom.py::test_a_build_says_the_same_as_what_is_written_for_all",
    ),
    bug(
        "sbom: a build names only what it expected",
        "infra/docker/sbom.py",
        "    if unnamed:",
        "    if False:",
        "tests/contract/test_sbom.py::test_a_build_ends_where_something_is_installed_that_no_lock_names",
    ),
    bug(
        "deletion: anybody of a tenant takes back what somebody wrote",
        "services/inference_proxy/src/inference_proxy/use_cases.py",
        'owner = None if principal.may("organization:write") else principal.owner',
        "owner = None",
        "services/inference_proxy/tests/test_service.py"
        "::test_feedback_is_taken_back_by_its_giver_or_who_manages_the_organization",
    ),
    bug(
        "deletion: a rating that is told of again comes back",
        "services/labeling/src/labeling/store.py",
        'await self._feedback.replace_one({"_id": event.feedback_id, "tenant_id": event.tenant_id}, gone, upsert=True)',
        'await self._feedback.delete_one({"_id": event.feedback_id, "tenant_id": gone["tenant_id"]})',
        f"{LABELING_TEST}::test_feedback_that_is_taken_back_is_in_the_inbox_no_more",
    ),
    bug(
        "deletion: looking for leftovers removes them",
        "libs/runtime/src/runtime/leftovers.py",
        "await leftovers.purge() if asked.purge else 0",
        "await leftovers.purge()",
        f"{INGEST_DELETION}::test_what_an_earlier_release_left_of_deleted_files_is_found_and_goes",
    ),
    bug(
        "deletion: the rows an earlier release left stay",
        "services/ingest/src/ingest/domain.py",
        "            self.purged = False\n            self._tell_deleted()",
        "            self._tell_deleted()",
        f"{INGEST_DELETION}::test_what_an_earlier_release_left_of_deleted_files_is_found_and_goes",
    ),
    bug(
        "deletion: a page deletes without the name",
        "services/console/src/console/pages/deletion.py",
        'if " ".join(fields.get("name", "").split()) != " ".join(doomed.name.split()):',
        "if False:",
        "services/console/tests/test_deletion_pages.py::test_its_name_is_asked_for_and_what_stays_is_said",
    ),
    bug(
        "a limit holds in one service only",
        "libs/chassis/src/chassis/auth.py",
        "            app_state.limiters[0].admit(principal.allowances)",
        "            pass",
        "tests/contract/test_rights.py::test_every_route_counts_against_the_keys_limit",
    ),
    bug(
        "a key makes one without its limits",
        "services/accounts/src/accounts/use_cases/keys.py",
        "            asked = own.bind(asked, self._limits.usual_key)",
        "            own.bind(asked, self._limits.usual_key)",
        "services/accounts/tests/test_service.py::test_a_key_never_makes_one_that_outgrows_it",
    ),
    bug(
        "a limited key makes many that have as much each",
        "services/accounts/src/accounts/domain/keys.py",
        "            makers=makers,",
        "            makers=(),",
        "services/accounts/tests/test_service.py::test_a_key_never_makes_one_that_outgrows_it",
    ),
    bug(
        "a key is verified behind a write",
        "services/accounts/src/accounts/use_cases/keys.py",
        "        self._accounts.note_use(key)",
        "        await self._accounts.change_key(key.tenant_id, key.id, lambda _: None)",
        "services/accounts/tests/test_service.py::test_a_key_is_verified_though_nothing_can_be_written",
    ),
    bug(
        "people: the last owner can go",
        "services/accounts/src/accounts/domain/tenants.py",
        "        if not left:",
        "        if False:",
        f"{PEOPLE}::test_the_last_owner_stays",
    ),
    bug(
        "people: owners who shut each other out at once are each counted on by the other",
        "services/accounts/src/accounts/use_cases/people.py",
        "lambda it: it.lose_owner(user_id, known)",
        "lambda it: it.owners.clear() or it.lose_owner(user_id, known)",
        f"{PEOPLE}::test_owners_who_shut_each_other_out_at_once_leave_one",
    ),
    bug(
        "people: a code lets in whoever comes, again and again",
        "services/accounts/src/accounts/domain/users.py",
        '        self.password_hash, self.password_changed_at = password_hash, at\n        self.give_code("", 0)',
        "        self.password_hash, self.password_changed_at = password_hash, at",
        f"{PEOPLE}::test_an_invitation_lets_one_person_in_once",
    ),
    bug(
        "people: a code given for one role lets in as another",
        "services/accounts/src/accounts/domain/users.py",
        '            self.role = role\n            self.give_code("", 0)',
        "            self.role = role",
        f"{PEOPLE}::test_a_code_ends_when_its_person_gets_another_role",
    ),
    bug(
        "people: rights are looked at before and not when it is done",
        "services/accounts/src/accounts/domain/users.py",
        "        if (self.role, self.disabled) != (seen.role, seen.disabled):",
        "        if False:",
        f"{PEOPLE}::test_rights_that_changed_meanwhile_are_looked_at_again",
    ),
    bug(
        "people: who is refused at the door counts against everybody",
        "services/accounts/src/accounts/use_cases/people.py",
        "            await self._accounts.end_sign_in(attempt)  # it was no guess, and must not count against others\n",
        "",
        f"{PEOPLE}::test_guesses_from_elsewhere_lock_nobody_out",
    ),
    bug(
        "people: the operator finds pages of organizations",
        "services/console/src/console/web.py",
        '        if session.role == "operator":',
        "        if False:",
        f"{ROOMS}::test_the_operator_finds_no_page_of_an_organization",
    ),
    bug(
        "people: a code holds for ever",
        "services/accounts/src/accounts/use_cases/people.py",
        "person.disabled or person.code_expires_at <= now()",
        "person.disabled",
        f"{PEOPLE}::test_a_code_ends_by_time_by_another_one_and_with_its_person",
    ),
    bug(
        "people: an invitation keeps somebody's address from them",
        "services/accounts/src/accounts/store.py",
        'return await self._user({"email": email, **HAS_PASSWORD})',
        'return await self._user({"email": email})',
        f"{PEOPLE}::test_an_invitation_keeps_nobodys_address_from_them",
    ),
    bug(
        "people: guesses at a password are counted at the door only",
        "services/accounts/src/accounts/use_cases/people.py",
        "        attempt = await self._begin(person.email, address)",
        "        attempt = await self._accounts.begin_sign_in('nobody', address)",
        f"{PEOPLE}::test_a_person_changes_their_own_password",
    ),
    bug(
        "people: a tenant whose slug is taken is refused",
        "services/accounts/src/accounts/use_cases/tenants.py",
        "range(1, SLUG_ATTEMPTS)",
        "range(1, 1)",
        f"{PEOPLE}::test_tenants_of_one_name_never_run_out_of_slugs",
    ),
    bug(
        "people: a service that acts for itself is the operator",
        "libs/chassis/src/chassis/auth.py",
        'signed_in = principal.caller == "console" and not principal.key_id.startswith(OF_SERVICE)',
        "signed_in = principal.caller is not None",
        f"{PEOPLE}::test_the_operator_acts_through_the_console_and_no_service_for_itself",
    ),
    bug(
        "people: admins make owners",
        "libs/chassis/src/chassis/roles.py",
        '"admin": SCOPES - {"organization:own"}',
        '"admin": SCOPES',
        f"{PEOPLE}::test_an_admin_manages_all_but_owners",
    ),
    bug(
        "people: a route asks less of its caller than it says",
        "services/registry/src/registry/api.py",
        'Approves = Annotated[Principal, require("models:approve")]',
        'Approves = Annotated[Principal, require("models:read")]',
        "tests/contract/test_permissions.py",
    ),
    bug(
        "people: sessions outlive the password they began with",
        "services/console/src/console/sessions.py",
        'or person.get("password_changed_at", 0) != session.password_changed_at',
        "or False",
        f"{ROOMS}::test_another_password_ends_the_other_sessions",
    ),
    bug(
        "people: the operator's session outlives the key",
        "services/console/src/console/sessions.py",
        'known = await self._accounts.ask(VERIFY, json={"key_hash": session.key_hash}, tenant_id="")',
        'known = {"role": "operator"}',
        f"{ROOMS}::test_the_operators_session_ends_with_the_key",
    ),
    bug(
        "people: anybody finds the operator's pages",
        "services/console/src/console/web.py",
        '        if session.role != "operator":',
        "        if False:",
        f"{ROOMS}::test_the_operators_pages_are_for_the_operator",
    ),
    bug(
        "people: the first page asks for files whoever looks",
        "services/console/src/console/pages/home.py",
        '_asked(may("files:read"), ingest,',
        "_asked(True, ingest,",
        f"{ROOMS}::test_a_home_asks_only_for_what_its_role_may_see",
    ),
    bug(
        "retrieval in a chat is asked as the service",
        "services/inference_proxy/src/inference_proxy/retrieval.py",
        "user=principal, json=body",
        "json=body",
        "services/inference_proxy/tests/test_owners.py::test_a_key_reads_no_store_through_a_chat_that_it_may_not_read",
    ),
    bug(
        "scopes end at the first service",
        "libs/chassis/src/chassis/tokens.py",
        '"scopes": sorted(user.scopes) if user else ["*"],',
        '"scopes": ["*"],',
        "libs/chassis/tests/test_auth.py::test_a_token_carries_what_the_caller_may_and_whose_their_things_are",
    ),
    bug(
        "an end user sees what everybody made",
        "libs/chassis/src/chassis/auth.py",
        'return {"owner": self.owner} if self.role == "end_user" else {}',
        "return {}",
        "libs/chassis/tests/test_auth.py::test_only_end_users_see_their_own_alone",
    ),
    bug(
        "an end user is answered by another's model",
        "services/inference_proxy/src/inference_proxy/routing.py",
        'if model.startswith("ft:") and principal.only',
        "if not model and principal.only",
        "services/inference_proxy/tests/test_owners.py"
        "::test_an_end_user_chats_with_their_own_models_and_those_with_an_alias",
    ),
    bug(
        "an end user reads another's stored chats",
        "services/inference_proxy/src/inference_proxy/store.py",
        '{**principal.only, "_id": chat_id, "stored": True}',
        '{"_id": chat_id, "stored": True}',
        "services/inference_proxy/tests/test_owners.py"
        "::test_an_end_user_sees_their_own_stored_chats_and_rates_their_own_answers",
    ),
    bug(
        "a labeler may publish",
        "libs/chassis/src/chassis/roles.py",
        '"labeler": frozenset({"labeling:annotate", "own:rotate"}),',
        '"labeler": frozenset({"labeling:write"}),',
        "libs/chassis/tests/test_auth.py::test_a_role_and_a_scope_must_both_allow",
    ),
    bug(
        "unknown adapter answered by the base",
        "services/inference_proxy/src/inference_proxy/routing.py",
        """        except NotFound as error:
            raise _not_found(model) from error
""",
        """        except NotFound as error:
            if model.startswith("ft:"):
                return await self._ask(tenant_id, model.split(":")[1], deadline)
            raise _not_found(model) from error
""",
        "services/inference_proxy/tests/test_service.py::test_an_unknown_model_is_not_found_and_nobody_answers_for_it",
    ),
    bug(
        "the client library drops what it cannot decode",
        "libs/eventbus/src/eventbus/as_it_came.py",
        "    return bytes(message.body)\n",
        '    return __import__("faststream.message").message.decode_message(message)\n',
        f"{DELIVERY}::test_a_message_that_the_client_library_cannot_read_is_a_dead_letter",
    ),
    bug(
        "a full disk passes for a bug",
        "libs/chassis/src/chassis/exhaustion.py",
        "if found is None and not always:",
        "if not always:",
        f"{HTTP}::test_an_exhausted_machine_is_worth_a_later_retry",
    ),
    bug(
        "people are outside what their tenant may use",
        "services/inference_proxy/src/inference_proxy/limits.py",
        "return (own, *principal.allowances)",
        "return (own,)",
        "services/inference_proxy/tests/test_parts.py"
        "::test_what_people_use_counts_with_what_the_keys_of_their_tenant_use",
    ),
    bug(
        "a token carries no allowances",
        "libs/chassis/src/chassis/tokens.py",
        "[asdict(allowance) for allowance in user.allowances] if user else []",
        "[]",
        "libs/chassis/tests/test_auth.py::test_a_token_carries_what_the_caller_may_and_whose_their_things_are",
    ),
    bug(
        "a replica is taken out for a store that chats live without",
        "services/inference_proxy/src/inference_proxy/app.py",
        'lives_without=["kafka", "mongodb", "objects"]',
        "lives_without=[]",
        "services/inference_proxy/tests/test_neighbours_away.py"
        "::test_a_replica_that_can_answer_is_ready_whichever_store_is_away",
    ),
    bug(
        "a wait is told again though nothing changed",
        "services/registry/src/registry/domain.py",
        '        if any(failure == one.model_copy(update={"at": failure.at}) for one in self.load_failures):\n'
        "            return\n",
        "",
        "services/registry/tests/test_gate.py::test_an_adapter_that_a_replica_cannot_load_is_told_once_for_each_reason",
    ),
    # documents, stores and labels
    bug(
        "document: a comment in code is a heading",
        f"{INDEXER}/markdown.py",
        "        if open_fence:\n",
        "        if open_fence and not HEADING.fullmatch(line):\n",
        f"{CHUNKS_TEST}::test_code_holds_no_headings",
    ),
    bug(
        "document: pieces of a table have no header",
        f"{INDEXER}/chunking.py",
        'above = f"{unit.header}\\n" if unit.header and unit.header is not header else ""',
        'above = ""',
        f"{CHUNKS_TEST}::test_rows_are_whole_and_each_piece_of_a_table_has_its_header",
    ),
    bug(
        "document: list items are torn",
        f"{INDEXER}/chunking.py",
        "for part in items(lines) if prose else lines:",
        "for part in lines:",
        f"{CHUNKS_TEST}::test_list_items_are_whole",
    ),
    bug(
        "document: a heading without text is lost",
        f"{INDEXER}/chunking.py",
        "            if title and not blocks:\n",
        "            if title and blocks and not title:\n",
        f"{CHUNKS_TEST}::test_every_line_of_a_document_is_in_some_chunk",
    ),
    bug(
        "document: sizes in tokens are counted in words",
        f"{INDEXER}/embedding.py",
        "return self.tokens(text) - self.ADDED",
        "return len(text.split())",
        f"{CHUNKS_TEST}::test_a_limit_in_tokens_is_kept_in_every_script",
    ),
    bug(
        "document: a character that grows is written over the heap",
        f"{INDEXER}/embedding.py",
        '.replace(PRAYER, normalize("NFKC", PRAYER))',
        "",
        f"{PARTS_TEST}::test_a_text_that_grows_when_it_is_read_and_one_with_a_nul_are_embedded_whole",
    ),
    bug(
        "store: true is 1",
        f"{INDEXER}/filters.py",
        "any(_type(have) == _type(value) and have == value for value",
        "any(have == value for value",
        f"{PARTS_TEST}::test_a_filter_finds_values_of_its_own_type_only",
    ),
    bug(
        "store: it never expires",
        f"{INDEXER}/domain.py",
        "return self.expired or (self.expires_at is not None and self.expires_at <= at)",
        "return self.expired",
        f"{INDEXER_TEST}::test_a_store_expires_after_days_without_use_and_its_files_with_it",
    ),
    bug(
        "store: the threshold is taken and ignored",
        f"{INDEXER}/use_cases.py",
        "if score >= threshold:",
        "if score >= 0:",
        f"{INDEXER_TEST}::test_results_below_the_threshold_are_left_out",
    ),
    bug(
        "store: a file goes with the events it has not sent",
        f"{INDEXER}/store.py",
        'published = {"outbox.0.id": {"$exists": False}}',
        "published: dict[str, Any] = {}",
        f"{INDEXER_TEST}::test_a_file_is_kept_until_its_events_are_published",
    ),
    bug(
        "store: a lost collection is not noticed",
        f"{INDEXER}/domain.py",
        'if self.state == "completed" and self.indexed_by != collection:',
        'if self.state == "completed" and not collection:',
        f"{INDEXER_TEST}::test_a_file_whose_vectors_are_in_another_collection_is_indexed_again",
    ),
    bug(
        "labels: answers stay although they fit no label",
        "services/labeling/src/labeling/store.py",
        '{**mine, "answer": {"$nin": project.labels}}',
        '{**mine, "answer": {"$in": []}}',
        f"{LABELING_TEST}::test_answers_that_are_none_of_the_new_labels_are_asked_for_again",
    ),
    bug(
        "labels: an answer that fits no label is published",
        "services/labeling/src/labeling/use_cases.py",
        "        await self._labels.reopen_unfit(project)\n",
        "",
        f"{LABELING_TEST}::test_an_answer_that_came_in_while_the_labels_changed_is_not_published",
    ),
    # idempotency keys
    bug(
        "idempotency key ignores the body",
        "libs/runtime/src/runtime/idempotency.py",
        'if stored["body_hash"] != body_hash:',
        'if stored["body_hash"] == "":',
        f"{HTTP}::test_an_idempotency_key_gives_the_same_answer_once",
    ),
    bug(
        "idempotency answer not stored",
        "libs/runtime/src/runtime/idempotency.py",
        "            await self._store(self)\n",
        "            pass\n",
        f"{HTTP}::test_an_idempotency_key_gives_the_same_answer_once",
    ),
    bug(
        "half a body is a request",
        "libs/runtime/src/runtime/idempotency.py",
        '        if message["type"] == "http.disconnect":\n            return None\n        body +=',
        '        if message["type"] == "http.disconnect":\n            return bytes(body)\n        body +=',
        f"{HTTP}::test_a_body_that_was_cut_off_was_not_asked",
    ),
    bug(
        "an answer too large for a document is kept",
        "libs/runtime/src/runtime/idempotency.py",
        'not message.get("more_body", False) and len(self.body) <= MAX_BODY',
        'not message.get("more_body", False)',
        f"{HTTP}::test_an_answer_too_large_to_be_kept_is_made_again",
    ),
    bug(
        "an answer is kept against the promise",
        "libs/runtime/src/runtime/idempotency.py",
        'if scope.get("state", {}).get(DONE_AGAIN):',
        "if False:",
        f"{HTTP}::test_what_is_promised_not_to_be_kept_is_not_kept_for_a_repetition",
    ),
    # answers
    bug(
        "an answer does not wait for its request",
        "libs/chassis/src/chassis/draining.py",
        'if message["type"] == "http.response.start" and not ended and is_small:',
        'if message["type"] == "" and not ended and is_small:',
        "libs/chassis/tests/test_refusals.py::test_an_answer_waits_for_the_end_of_its_request",
    ),
    bug(
        "a slow sender holds its refusal for ever",
        "libs/chassis/src/chassis/draining.py",
        "await asyncio.wait_for(drain(), self.seconds)",
        "await drain()",
        "libs/chassis/tests/test_refusals.py::test_it_waits_neither_for_ever_nor_for_everything",
    ),
    # what people see
    bug(
        "console: a file's oldest job says how it stands",
        "services/console/src/console/pages/home.py",
        'for job in reversed(jobs["data"])}',
        'for job in jobs["data"]}',
        f"{CONSOLE}::test_the_newest_job_of_a_file_says_how_it_stands",
    ),
    bug(
        "console: a list ends where its first page does",
        "services/console/src/console/paging.py",
        'return str(self.rows[-1]["id"]) if self.has_more and self.rows else None',
        "return None",
        f"{CONSOLE}::test_every_list_can_be_read_to_its_end",
    ),
    bug(
        "console: an open page reads a job's events at every look",
        "services/console/src/console/progress.py",
        'if stage == "training" or moment != seen.moment:',
        "if True:",
        f"{PROGRESS}::test_a_page_left_open_asks_little",
    ),
    bug(
        "console: an open page never looks less often",
        "services/console/src/console/pages/home.py",
        "pause = min(PAUSE_GROWTH * pause, SLOWEST_POLL_SECONDS)",
        "pause = POLL_SECONDS",
        f"{PROGRESS}::test_a_page_that_shows_nothing_new_looks_less_often",
    ),
    bug(
        "console: a session follows any number of pages",
        "services/console/src/console/streams.py",
        "while len(mine) > self._most:",
        "while False:",
        f"{PROGRESS}::test_the_newest_pages_of_a_session_are_followed",
    ),
    bug(
        "console: the reference shows routes between services",
        "services/console/src/console/openapi.py",
        "if path.startswith(PUBLIC):",
        "if True:",
        "services/console/tests/test_reference.py::test_public_routes_are_merged_and_internal_ones_left_out",
    ),
    bug(
        "command line: ids are cut to the terminal",
        "cli/src/sartor_cli/tables.py",
        "width=max(least, console.width)",
        "width=console.width",
        f"{COMMANDS}::test_what_is_shown_can_be_read_and_copied",
    ),
    bug(
        "command line: an id chooses the route",
        "cli/src/sartor_cli/client.py",
        'quote(one, safe="")',
        "one",
        f"{COMMANDS}::test_what_is_typed_does_not_choose_the_route",
    ),
    bug(
        "command line: nobody hears what a followed job waits for",
        "cli/src/sartor_cli/model_commands.py",
        "if waits and waits != waited:",
        "if False:",
        f"{COMMANDS}::test_a_followed_job_says_whom_it_waits_for_and_ends",
    ),
    # the contract with other releases
    bug(
        "contract: a field renamed",
        f"{EVENTS}/finetunes.py",
        'suffix: Id = Field("", ',
        'name_suffix: Id = Field("", ',
        f"{RECORDINGS}::test_nothing_of_a_recorded_message_is_lost",
    ),
    bug(
        "contract: a value no longer taken",
        f"{EVENTS}/accounts.py",
        'gate: Literal["auto", "approval", "advisory"]',
        'gate: Literal["auto", "approval"]',
        f"{RECORDINGS}::test_what_handles_takes_recorded_messages",
    ),
    bug(
        "contract: a field left out at times",
        f"{EVENTS}/accounts.py",
        'key_hash: Id = Field(description="SHA-256 of the key: ',
        'key_hash: Id | None = Field(None, description="SHA-256 of the key: ',
        f"{RECORDINGS}::test_a_consumer_of_the_release_reads_what_is_said_today",
    ),
    Planted(
        "contract: headers renamed",
        (
            Edit(ENVELOPE, 'f"ce_{name}": str(value)', 'f"ce-{name}": str(value)'),
            Edit(ENVELOPE, 'if name.startswith("ce_")', 'if name.startswith("ce-")'),
        ),
        f"{RECORDINGS}::test_nothing_of_a_recorded_message_is_lost",
    ),
    bug(
        "contract: an attribute renamed",
        ENVELOPE,
        'origin: str = Field("", ',
        'stream: str = Field("", ',
        f"{RECORDINGS}::test_nothing_of_a_recorded_message_is_lost",
    ),
    bug(
        "contract: an attribute asked for that was optional",
        BUS,
        "        envelope = read_envelope(record.headers)\n",
        """        envelope = read_envelope(record.headers)
        if not envelope.causationid:
            raise MalformedEvent("no causationid")
""",
        f"{RECORDINGS}::test_what_handles_takes_recorded_messages",
    ),
    bug(
        "contract: an id that follows from an event follows otherwise",
        "services/registry/src/registry/domain.py",
        'short = derived_id("", job_id)[:8]',
        'short = derived_id("", job_id)[:12]',
        f"{RECORDINGS}::test_what_handles_takes_recorded_messages",
    ),
    # what people upload
    bug(
        "upload: an instruction without its input",
        f"{READERS}/rows/roles.py",
        'asked = f"{asked}\\n\\n{context}"',
        "pass",
        f"{READERS_TEST}::test_all_of_an_instruction_row_is_read",
    ),
    bug(
        "upload: a tool call is cut off its answer",
        f"{READERS}/rows/conversation.py",
        '    _refuse_calls(message, where, number)\n    read = {"role": role,',
        '    read = {"role": role,',
        f"{READERS_TEST}::test_a_tool_call_is_refused_by_its_name",
    ),
    bug(
        "upload: rows that differ in what is not read become one",
        CLEANING,
        'f"{_spelled(row)}\\n{beside}"',
        "_spelled(row)",
        f"{CLEANING_TEST}::test_rows_that_differ_only_in_what_is_not_read_stay_apart",
    ),
    bug(
        "upload: the blank rows of a spreadsheet are bad rows",
        f"{READERS}/csv_table.py",
        "if any(map(says_something, record)):",
        "if record:",
        f"{READERS_TEST}::test_what_a_spreadsheet_leaves_behind_is_no_row",
    ),
    bug(
        "upload: the first of two columns that could be the text is taken",
        f"{READERS}/rows/roles.py",
        "        if len(found) > 1:\n",
        "        if len(found) > 9:\n",
        f"{READERS_TEST}::test_columns_that_could_be_the_same_are_refused_with_both_places",
    ),
    bug(
        "upload: a brace makes rows of a document",
        f"{READERS}/formats.py",
        "chain(named, begun)",
        "chain(begun, named)",
        f"{READERS_TEST}::test_a_document_by_its_name_is_one_however_it_begins",
    ),
    bug(
        "upload: a workbook is inflated before its size is looked at",
        f"{READERS}/workbook.py",
        "if inflated > MAX_INFLATED_BYTES or len(parts) > MAX_PARTS:",
        "if len(parts) > MAX_PARTS:",
        f"{WORKBOOK_TEST}::test_what_inflates_to_too_much_is_refused_before_it_is_inflated",
    ),
    bug(
        "upload: a part may inflate to more than it says",
        f"{READERS}/workbook.py",
        "if any(part.compress_type not in BOUNDED for part in parts):",
        "if False:",
        f"{WORKBOOK_TEST}::test_a_part_that_zipfile_unpacks_unbounded_is_refused",
    ),
    bug(
        "upload: a row that stands twice is left out",
        f"{READERS}/worksheet.py",
        "if before < number <= LAST_ROW and",
        "if number <= LAST_ROW and",
        f"{WORKBOOK_TEST}::test_what_stands_twice_is_refused",
    ),
    bug(
        "upload: merged cells are read as blank ones",
        f"{READERS}/worksheet.py",
        "        _refuse_merged(merged, header, last, width)\n",
        "        pass\n",
        f"{WORKBOOK_TEST}::test_merged_cells_of_a_table_are_refused",
    ),
    bug(
        "upload: a formula that nothing calculated is an empty cell",
        f"{READERS}/worksheet.py",
        "        elif uncalculated:\n            raise uncalculated\n",
        "",
        f"{WORKBOOK_TEST}::test_a_formula_is_its_value_and_one_without_a_value_is_refused_by_its_cell",
    ),
    bug(
        "upload: what a parser prints is in the log of its worker",
        f"{INGEST}/worker.py",
        "stderr=asyncio.subprocess.DEVNULL,",
        "stderr=None,",
        f"{INGEST_WORKER}::test_what_a_parser_prints_is_neither_kept_nor_logged",
    ),
    bug(
        "upload: what an error says of a file is logged",
        f"{INGEST}/parse_job.py",
        'f"{type(behind).__name__} at',
        'f"{behind} at',
        f"{INGEST_WORKER}::test_of_a_parser_that_fails_the_log_names_the_place_and_nothing_of_the_file",
    ),
    bug(
        "split: a row and the one that goes on from it are apart",
        GROUPING,
        "        for beginning in list(_beginnings(row))[:-1]:\n",
        "        for beginning in list(_beginnings(row))[:-3]:\n",
        f"{CLEANING_TEST}::test_no_row_is_in_another_split_than_one_that_begins_with_all_of_it",
    ),
    bug(
        "split: what is not to be learned is a reference",
        CLEANING,
        "        if all(map(is_reference, group)):\n",
        "        if group:\n",
        f"{CLEANING_TEST}::test_an_answer_that_is_not_to_be_learned_is_no_reference",
    ),
    bug(
        "split: small classes give what large ones give",
        CLEANING,
        "SMALL_CLASS = 8\n",
        "SMALL_CLASS = 3\n",
        f"{CLEANING_TEST}::test_a_class_of_a_few_rows_gives_one_of_them",
    ),
    bug(
        "upload: a stored file is answered as an error",
        "services/ingest/src/ingest/use_cases.py",
        "        except (Transient, PyMongoError) as error:  # the file is there: what is left to tidy, `sweep` will\n",
        "        except ZeroDivisionError as error:\n",
        f"{INGEST_WORKER}::test_nothing_fails_an_upload_once_its_file_is_stored",
    ),
    bug(
        "upload: parts of a dataset are written over each other",
        f"{INGEST}/publishing.py",
        'prefix = f"tenants/{file.tenant_id}/datasets/{dataset_id}/{version}"',
        'prefix = f"tenants/{file.tenant_id}/datasets/{dataset_id}"',
        f"{INGEST_WORKER}::test_a_dataset_that_was_half_made_otherwise_keeps_the_bytes_it_names",
    ),
    bug(
        "upload: content is asked for after its answer began",
        "services/ingest/src/ingest/store.py",
        'first = await anext(chunks, b"")',
        'first = b""',
        f"{INGEST_WORKER}::test_the_content_of_a_file_is_there_before_its_answer_begins",
    ),
    bug(
        "upload: the slots are there for whoever sends first",
        "libs/chassis/src/chassis/in_flight.py",
        "after > self._most - self._for_newcomers",
        "after > self._most",
        "libs/chassis/tests/test_in_flight.py::test_four_tenants_who_take_all_they_can_leave_places_for_others",
    ),
    bug(
        "upload: no slot is kept for who has none",
        "services/ingest/src/ingest/api.py",
        "for_newcomers=settings.ingest_uploads_at_a_time // 2,",
        "for_newcomers=0,",
        "services/ingest/tests/test_service.py::test_half_of_the_slots_are_for_tenants_that_have_none",
    ),
    bug(
        "upload: a key means the same file for ever",
        "libs/runtime/src/runtime/idempotency.py",
        'return f"{self.record_id}{self.life}"',
        "return self.record_id",
        "services/ingest/tests/test_repeats.py::test_a_key_may_be_used_for_another_file_once_its_time_is_over",
    ),
    # what is deleted with what
    bug(
        "deletion: rows outlive their file",
        f"{INGEST}/use_cases.py",
        "                await self.release(file.tenant_id, file.id)\n",
        "",
        f"{INGEST_DELETION}::test_a_deleted_file_leaves_nothing_that_was_made_from_it",
    ),
    bug(
        "deletion: the rows of a living model go",
        f"{INGEST}/use_cases.py",
        "if not outliving or await self._files.uses_of(tenant_id, file_id):",
        "if not outliving:",
        f"{INGEST_DELETION}::test_the_rows_of_a_living_model_stay_until_its_end_and_are_named",
    ),
    bug(
        "deletion: rows kept for a model outlive it",
        f"{INGEST}/use_cases.py",
        "        await self._uses.note(event.tenant_id, event.job_id, over=True)\n",
        "",
        f"{INGEST_DELETION}::test_the_rows_of_a_living_model_stay_until_its_end_and_are_named",
    ),
    bug(
        "deletion: what a job validates with goes before it is trained",
        f"{INGEST}/store.py",
        'as_what = ({"training_file": file_id}, {"validation_file": file_id, "trained": {"$ne": True}})',
        'as_what = ({"training_file": file_id},)',
        f"{INGEST_DELETION}::test_a_job_keeps_what_it_validates_with_until_it_is_trained",
    ),
    bug(
        "deletion: rows of a dataset count as nobody's",
        f"{INGEST}/store.py",
        "return files + datasets + await self._elsewhere.bytes_of(tenant_id)",
        "return files + await self._elsewhere.bytes_of(tenant_id)",
        f"{INGEST_DELETION}::test_derived_bytes_count_until_they_are_gone",
    ),
    bug(
        "deletion: the answers' file outlives its project",
        f"{INGEST}/use_cases.py",
        "        for file in await self._files.published_by(event.tenant_id, event.project_id):\n",
        "        for file in list[File]():\n",
        f"{INGEST_DELETION}::test_published_labels_go_with_their_project_and_are_named_with_the_file_they_answer",
    ),
    bug(
        "deletion: tasks outlive their project",
        "services/labeling/src/labeling/use_cases.py",
        "            await self._labels.remove_tasks(project)\n",
        "",
        f"{LABELING_DELETION}::test_a_deleted_project_leaves_no_task_no_answer_and_no_published_label",
    ),
    bug(
        "deletion: rows that come late bring their project back",
        "services/labeling/src/labeling/use_cases.py",
        "        await self._labels.note_deleted(event.tenant_id, event.file_id)\n",
        "",
        f"{LABELING_DELETION}::test_rows_that_come_after_their_file_was_deleted_make_no_project",
    ),
    bug(
        "deletion: tasks written meanwhile stay",
        "services/labeling/src/labeling/use_cases.py",
        "            it.purge_again()\n",
        "",
        f"{LABELING_DELETION}::test_a_delete_while_the_tasks_are_written_leaves_none",
    ),
    bug(
        "deletion: the word that tasks are removed passes one who adds some",
        "services/labeling/src/labeling/use_cases.py",
        "await self._labels.save_claimed(project)",
        "await self._labels.change(project.tenant_id, project.id, Project.purge)",
        f"{LABELING_DELETION}::test_tasks_written_between_the_removal_and_the_word_of_it_are_removed_too",
    ),
    bug(
        "deletion: rows that come again leave what a killed attempt wrote",
        "services/labeling/src/labeling/use_cases.py",
        "        if deleted and current is not None:\n",
        '        if current is not None and current.state == "open" and deleted:\n',
        f"{LABELING_DELETION}::test_rows_that_come_again_take_along_what_a_killed_attempt_wrote",
    ),
    bug(
        "deletion: answers written late of a deleted project stay",
        "services/labeling/src/labeling/use_cases.py",
        "            await self._remove(project)\n            raise\n",
        "            raise\n",
        f"{LABELING_DELETION}::test_answers_written_while_their_project_is_deleted_do_not_stay",
    ),
    bug(
        "deletion: the word that a file's bytes are gone passes a late writer",
        f"{INGEST}/store.py",
        "await self._files.save(file, fence=file.lease.fence)",
        "await self._files.update(file.tenant_id, file.id, File.purge)",
        f"{INGEST_DELETION}::test_bytes_written_between_the_removal_and_the_word_of_it_are_removed_too",
    ),
    bug(
        "deletion: a job that was trained meanwhile loses its adapter with its rows",
        "services/trainer/src/trainer/domain.py",
        "        if self.rests_on(data_id):\n            self.fail(failure, at)\n",
        "        self.fail(failure, at)\n",
        "services/trainer/tests/test_service.py"
        "::test_a_job_that_is_trained_while_its_rows_are_deleted_keeps_its_adapter",
    ),
    bug(
        "deletion: rows that are heard of after their deletion are trained on",
        "services/trainer/src/trainer/store.py",
        'if found.get("prepared") and not found.get("deleted"):',
        'if found.get("prepared"):',
        "services/trainer/tests/test_service.py"
        "::test_rows_that_were_deleted_before_they_were_heard_of_are_trained_on_by_no_job",
    ),
    bug(
        "deletion: a candidate waits for ever for a test on rows that are gone",
        "services/registry/src/registry/use_cases.py",
        "await self._models.untested_of(deleted.tenant_id, deleted.dataset_id)",
        "list[Model]()",
        f"{REGISTRY}::test_a_candidate_whose_rows_are_deleted_before_it_is_tested_ends_its_job",
    ),
    bug(
        "deletion: a candidate that comes late is tested on rows that are gone",
        "services/evaluator/src/evaluator/use_cases.py",
        "        await self._evaluations.note_deleted(deleted.tenant_id, deleted.heldout)\n",
        "",
        f"{EVALUATOR_TEST}::test_a_candidate_whose_rows_are_deleted_before_it_is_heard_of_is_not_tested",
    ),
    bug(
        "deletion: an end user may delete everybody's models",
        "services/registry/src/registry/use_cases.py",
        "model = await self._models.get(tenant_id, model_id, where)",
        "model = await self._models.get(tenant_id, model_id)",
        f"{REGISTRY}::test_an_end_user_takes_back_their_own_model_and_no_other",
    ),
    bug(
        "deletion: an adapter that two jobs made counts no more when one has lost it",
        f"{INGEST}/store.py",
        '"$cond": [{"$setIsSubset": ["$makers", "$lost"]}, 0, size]',
        '"$cond": [{"$setIsSubset": ["$lost", "$makers"]}, 0, size]',
        f"{INGEST_DELETION}::test_an_adapter_of_two_jobs_counts_once_and_until_both_have_lost_it",
    ),
    bug(
        "deletion: evidence outlives its model",
        "services/evaluator/src/evaluator/use_cases.py",
        "            await self._artifacts.delete_evidence(evaluation)\n",
        "",
        f"{EVALUATOR_TEST}::test_the_evidence_goes_with_its_model_and_only_the_scores_stay",
    ),
    bug(
        "deletion: the adapter of a deleted model stays stored",
        "services/trainer/src/trainer/sweep.py",
        '                if shared == "no":\n                    await self._objects.delete_adapter(job)\n',
        "",
        f"{TRAINING}::test_the_files_of_a_discarded_adapter_go_but_not_those_that_another_job_keeps",
    ),
    bug(
        "deletion: the adapter of a living model is removed",
        "services/trainer/src/trainer/domain.py",
        '        self.state, self.fine_tuned_model, self.finished_at = "succeeded", model_id, at\n',
        '        self.state, self.fine_tuned_model, self.finished_at = "succeeded", model_id, at\n'
        "        self.discard_adapter()\n",
    ),
    bug(
        "deletion: the adapter goes that another job keeps",
        "services/trainer/src/trainer/store.py",
        'if await self._jobs.collection.find_one({**others, **same}, {"_id": 1}) is not None:',
        "if same is None:",
        f"{TRAINING}::test_the_files_of_a_discarded_adapter_go_but_not_those_that_another_job_keeps",
    ),
    bug(
        "deletion: a model is deleted again and again",
        "services/registry/src/registry/domain.py",
        "        self.deleted_at = at\n",
        "",
        "services/registry/tests/test_gate.py::test_a_model_is_deleted_once_in_whatever_state",
    ),
    # events from and for services outside
    bug(
        "outside events: a tenant in the attributes is believed",
        f"{GATEWAY}/domain/received.py",
        "if tenant not in (None, producer.tenant_id):",
        "if tenant not in (None, sent.tenantid, producer.tenant_id):",
        f"{GATEWAY_RULES}::test_what_is_refused_names_the_place",
    ),
    bug(
        "outside events: a key publishes what it does not name",
        f"{GATEWAY}/domain/received.py",
        "if sent.type not in PUBLISHABLE or sent.type not in producer.event_types:",
        "if sent.type not in PUBLISHABLE:",
        f"{GATEWAY_RULES}::test_a_key_publishes_the_types_it_names_and_no_others",
    ),
    bug(
        "outside events: an id of the sender's own choice is published",
        f"{GATEWAY}/domain/received.py",
        "own = derived_id(ID_PREFIXES[kind.type], producer.tenant_id, given)",
        "own = given",
        f"{GATEWAY_RULES}::test_what_is_published_is_the_tenants_and_says_who_said_it",
    ),
    bug(
        "outside events: another body under the same id is taken for the first",
        f"{GATEWAY}/domain/received.py",
        "if self.digest != digest_of(sent):",
        "if not self.digest:",
        f"{PUBLISHING}::test_an_id_used_again_for_another_event_is_a_conflict",
    ),
    bug(
        "outside events: a list is published up to its first wrong event",
        f"{GATEWAY}/use_cases/publishing.py",
        """        checked = [await self._checked(producer, one, place, many, seen) for place, one in enumerate(events)]
        return [await self._publish(producer, sent, fresh) for sent, fresh in checked]
""",
        """        return [
            await self._publish(producer, *await self._checked(producer, one, place, many, seen))
            for place, one in enumerate(events)
        ]
""",
        f"{PUBLISHING}::test_a_list_is_published_whole_or_not_at_all",
    ),
    bug(
        "outside events: a list with two bodies under one id is published up to the second",
        f"{GATEWAY}/use_cases/publishing.py",
        "seen.setdefault(fresh.id, fresh).expect(sent)",
        "seen.setdefault(fresh.id, fresh)",
        f"{PUBLISHING}::test_a_list_is_published_whole_or_not_at_all",
    ),
    bug(
        "outside events: the way in which an event comes makes it another one",
        f"{GATEWAY}/domain/received.py",
        'exclude={"datacontenttype"}',
        "exclude=set()",
        f"{PUBLISHING}::test_an_event_comes_in_headers_too",
    ),
    bug(
        "event streams: one outlives its key while there is something to read",
        f"{GATEWAY}/api/reading.py",
        "CHECK_SECONDS = 1.0",
        "CHECK_SECONDS = 1e9",
        f"{READING}::test_a_stream_ends_with_its_key_however_much_there_is_to_read",
    ),
    bug(
        "event streams: those that open at once are not counted",
        f"{GATEWAY}/api/reading.py",
        "        with self._place:\n",
        "        if self._place:\n",
        f"{READING}::test_a_burst_gets_no_more_places_than_there_are",
    ),
    bug(
        "event log: what goes while a page is looked for is passed over",
        f"{GATEWAY}/store.py",
        """        found = await page(self._entries, query, [("number", 1)], limit=limit)
        if after is not None:  # after the events were found: the oldest go meanwhile
            await self._expect_kept(tenant_id, after, head)
""",
        """        if after is not None:
            await self._expect_kept(tenant_id, after, head)
        found = await page(self._entries, query, [("number", 1)], limit=limit)
""",
        f"{READING}::test_events_that_go_while_a_page_is_looked_for_are_not_passed_over",
    ),
    bug(
        "event log: a key reads what its person's role of today may not",
        f"{GATEWAY}/domain/visible.py",
        "ROLES.get(principal.owner_role or principal.role",
        "ROLES.get(principal.role or principal.owner_role",
        f"{GATEWAY_RULES}::test_a_key_reads_no_more_than_its_persons_role_of_today",
    ),
    bug(
        "event log: an event whose place was taken is lost",
        f"{GATEWAY}/store.py",
        "            except DuplicateKeyError:\n                continue\n",
        "            except DuplicateKeyError:\n                pass\n",
        f"{READING}::test_events_that_come_together_get_places_of_their_own",
    ),
    bug(
        "event log: a reader whose events are gone is told of none",
        f"{GATEWAY}/store.py",
        'if after > head or oldest is None or oldest["number"] > after + 1:',
        "if after > head:",
        f"{READING}::test_a_tenant_has_its_newest_events_and_is_told_of_a_gap",
    ),
    bug(
        "event log: an empty page ends behind an event that is yet to come",
        f"{GATEWAY}/store.py",
        """found[-1]["number"] if len(found) == limit else head""",
        """found[-1]["number"] if found else head + 1""",
        f"{READING}::test_a_tenant_reads_its_own_events_in_order_and_none_twice",
    ),
    bug(
        "event log: one reads what one's role may not",
        f"{GATEWAY}/domain/visible.py",
        "if covers(role, seen.scope) and covers(today, seen.scope)}",
        "if role}",
        f"{GATEWAY_RULES}::test_a_role_reads_what_it_may_and_no_more",
    ),
    bug(
        "webhooks: an address inside is reached by a name",
        f"{GATEWAY}/sending.py",
        "if not self._to_inside and not all(map(is_outside, addresses)):",
        "if not self._to_inside and not addresses:",
        f"{GATEWAY_RULES}::test_no_webhook_goes_inside_or_in_the_clear",
    ),
    bug(
        "webhooks: an IPv4 address inside an IPv6 one is not looked at",
        f"{GATEWAY}/sending.py",
        "carried = address.ipv4_mapped or address.sixtofour",
        "carried = address.ipv4_mapped",
        f"{GATEWAY_RULES}::test_no_address_inside_passes_for_one_outside",
    ),
    bug(
        "webhooks: a site's own addresses pass for public ones",
        f"{GATEWAY}/sending.py",
        "if address not in IPV6_PUBLIC:",
        "if address.is_unspecified:",
        f"{GATEWAY_RULES}::test_no_address_inside_passes_for_one_outside",
    ),
    bug(
        "webhooks: a cloud's own addresses pass for public ones",
        f"{GATEWAY}/sending.py",
        "if any(address in network for network in NOT_PUBLIC):",
        "if address.is_unspecified:",
        f"{GATEWAY_RULES}::test_no_address_inside_passes_for_one_outside",
    ),
    bug(
        "webhooks: the name is looked up again by who connects",
        f"{GATEWAY}/sending.py",
        "target.url.copy_with(host=target.at),",
        "target.url,",
        f"{SENDING}::test_the_address_that_was_looked_at_is_connected_to_and_asked_by_name",
    ),
    bug(
        "webhooks: a host outside ASCII cannot be asked",
        f"{GATEWAY}/sending.py",
        'headers["host"] = target.url.netloc.decode("ascii")',
        'headers["host"] = target.url.host',
        f"{SENDING}::test_the_address_that_was_looked_at_is_connected_to_and_asked_by_name",
    ),
    bug(
        "webhooks: a receiver is sent another's cookie",
        f"{GATEWAY}/sending.py",
        "cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),",
        "cookies=None,",
        f"{SENDING}::test_no_receiver_is_sent_anothers_cookie",
    ),
    bug(
        "webhooks: a name that was given up frees its place while a thread looks it up",
        f"{GATEWAY}/sending.py",
        "found = await asyncio.shield(lookup)",
        "found = await lookup",
        f"{SENDING}::test_a_name_that_was_given_up_keeps_its_place_while_it_is_looked_up",
    ),
    bug(
        "webhooks: an address at which the sender stumbles is tried for ever",
        f"{GATEWAY}/worker.py",
        "except Exception as error:  # the boundary of one attempt: an odd address raises anything",
        "except OSError as error:",
        f"{WEBHOOKS}::test_a_delivery_that_breaks_ends_no_other",
    ),
    bug(
        "webhooks: receivers of one tenant that hang take every place",
        f"{GATEWAY}/worker.py",
        "if many >= settings.webhook_deliveries_per_tenant]",
        "if many < 0]",
        f"{WEBHOOKS}::test_receivers_that_hang_hold_up_neither_the_tenants_others_nor_other_tenants",
    ),
    bug(
        "webhooks: an engineer leads what an admin is told of keys elsewhere",
        f"{GATEWAY}/use_cases/webhooks.py",
        "            readable_types(maker, endpoint.types)\n            endpoint.change(now(), **changes)\n",
        "            endpoint.change(now(), **changes)\n",
        f"{WEBHOOKS}::test_what_is_sent_of_anothers_events_is_not_led_elsewhere",
    ),
    bug(
        "webhooks: an engineer has sent again what an admin was told of keys",
        f"{GATEWAY}/use_cases/webhooks.py",
        "readable_types(maker, {*endpoint.types, delivery.event_type})",
        "readable_types(maker, endpoint.types)",
        f"{WEBHOOKS}::test_what_is_sent_of_anothers_events_is_not_led_elsewhere",
    ),
    bug(
        "webhooks: a redirect is followed inside",
        f"{GATEWAY}/sending.py",
        "follow_redirects=False",
        "follow_redirects=True",
        f"{WEBHOOKS}::test_a_delivery_that_fails_is_tried_again_under_the_same_id",
    ),
    bug(
        "webhooks: a delivery is tried for ever",
        f"{GATEWAY}/domain/webhooks.py",
        "elif outcome.over or outcome.gone or self.attempts >= most:",
        "elif outcome.over or outcome.gone:",
        f"{GATEWAY_RULES}::test_a_delivery_is_tried_again_and_then_parked",
    ),
    bug(
        "webhooks: one signs what was sent without its time",
        "schemas/src/schemas/webhooks.py",
        """signed = f"{webhook_id}.{timestamp}.".encode() + body""",
        """signed = f"{webhook_id}.".encode() + body""",
        f"{WEBHOOKS}::test_the_openai_sdk_makes_tries_and_unwraps_webhooks",
    ),
    bug(
        "webhooks: deliveries to an endpoint that is away pile up",
        f"{GATEWAY}/use_cases/reading.py",
        "if await self._webhooks.is_full(endpoint, self._most_waiting):",
        "if self._most_waiting < 0:",
        f"{WEBHOOKS}::test_an_endpoint_that_is_away_holds_up_nobody_and_only_so_much",
    ),
    bug(
        "pretrain: text that is held out is learned too",
        PRETRAIN,
        "train=Examples(windows_of(parts.train), repeated=repeated)",
        "train=Examples(windows_of([*parts.train, *parts.heldout]), repeated=repeated)",
        f"{PRETRAIN_TEST}::test_a_window_is_of_one_document_and_every_token_is_a_target_once",
    ),
    bug(
        "pretrain: the end of an only document is learned before it is held out",
        PRETRAIN,
        "learned = [tokens[:to_validate] if",
        "learned = [tokens if",
        f"{PRETRAIN_TEST}::test_of_one_document_the_end_is_held_out_and_that_is_said",
    ),
    bug(
        "pretrain: the base model is measured with the adapter",
        PRETRAIN,
        "        with model.without_adapter():\n            base =",
        "        if True:\n            base =",
        f"{PRETRAIN_TEST}::test_perplexity_of_held_out_documents_falls_and_is_published",
    ),
    bug(
        "pretrain: a window goes on into the next document",
        PRETRAIN,
        "[window for tokens in part for window in windows(tokens, longest, start)]",
        "list(windows([token for tokens in part for token in tokens], longest, start))",
        f"{PRETRAIN_TEST}::test_a_window_is_of_one_document_and_every_token_is_a_target_once",
    ),
    bug(
        "pretrain: passages end with their window, so short texts have none",
        PRETRAIN,
        "    tokens = list(chain.from_iterable(losses))\n    n_passages",
        "    tokens = next(iter(losses))\n    n_passages",
        f"{PRETRAIN_TEST}::test_passages_are_cut_across_windows_and_leave_out_no_token",
    ),
    bug(
        "pretrain: many passages of few documents count as many measurements",
        PRETRAIN,
        "    if documents:\n        rest",
        "    if not losses:\n        rest",
        f"{PRETRAIN_TEST}::test_whole_documents_are_what_is_independent_of_each_other",
    ),
    bug(
        "pretrain: two short documents are held out and that decides",
        PRETRAIN,
        "    if size >= FEWEST_HELDOUT:\n        return taken",
        "    if taken:\n        return taken",
        f"{PRETRAIN_TEST}::test_whatever_the_documents_enough_is_held_out_and_half_is_learned",
    ),
    bug(
        "pretrain: a job on a file that cannot be read waits for its text for ever",
        JOB_DATA,
        """return rejected.purpose == "user_data" and rejected.code in BECAME_TEXT""",
        "return True",
        f"{TEXT_JOBS}::test_a_file_that_cannot_be_read_fails_the_job",
    ),
    bug(
        "pretrain: a job on a text of which no event was heard waits for ever",
        JOB_DATA,
        "text = text or await self._ask(job)",
        "text = text",
        f"{TEXT_JOBS}::test_a_file_that_was_read_before_anybody_listened_is_asked_for",
    ),
    bug(
        "pretrain: windows longer than the installation allows are made shorter without a word",
        "services/trainer/src/trainer/use_cases.py",
        "        self._data.check(asked.hyperparameters)\n",
        "",
        f"{TEXT_JOBS}::test_what_a_method_cannot_use_is_refused_by_its_name",
    ),
    bug(
        "held-out text: a model that lost is let through",
        "services/evaluator/src/evaluator/published.py",
        "if gain.high <= 0:",
        "if gain.low >= 0:",
        f"{PUBLISHED_TEST}::test_the_interval_of_the_gain_decides",
    ),
    bug(
        "held-out text: one document decides",
        "services/evaluator/src/evaluator/published.py",
        "if gain.n < FEWEST_UNITS:",
        "if gain.n < 1:",
        f"{PUBLISHED_TEST}::test_of_whole_documents_their_number_counts_and_not_that_of_their_passages",
    ),
)
