"""Bugs in how events are published, delivered and read."""

from __future__ import annotations

from tests.planted.bug import Edit, Planted, bug

DISPATCH_TEST = "libs/eventbus/tests/test_keyed_dispatch.py"
DELIVERY = "libs/eventbus/tests/test_delivery.py"
RELAY_TEST = "libs/eventbus/tests/test_relay.py"
UNREADABLE_TEST = "libs/eventbus/tests/test_unreadable_documents.py"
QUEUE_TEST = "libs/work/tests/test_queue.py"
RECORDINGS = "tests/contract/test_recordings.py"
WEBHOOKS = "services/event_gateway/tests/test_webhooks.py"

BUGS: tuple[Planted, ...] = (
    bug(
        "ack before effect",
        "eventbus:KeyedDispatch._run",
        "elif (deferred := (await self._settle(message))):",
        "elif progress.finish(message.offset) or (deferred := (await self._settle(message))):",
    ),
    bug(
        "a group is formed by the topics that the broker told of",
        "eventbus:WholeRoundRobin.assign",
        "if (untold := sorted((topic for topic in topics if not cluster.partitions_for_topic(topic)))):",
        "if (untold := []):",
        "libs/eventbus/tests/test_assignor.py",
    ),
    bug(
        "ack before the dead letter is written",
        "eventbus:KeyedDispatch._finish_after",
        "await deferred\nself._finish(progress, offset)",
        "self._finish(progress, offset)\nawait deferred",
        f"{DISPATCH_TEST}::test_what_is_left_to_do_holds_the_commit_and_its_room_but_not_the_key",
    ),
    bug(
        "a commit passes what is not done",
        "eventbus:PartitionProgress.finish",
        "self._done.add(offset)",
        "self._done.add(offset)\nself.done_until = offset + 1",
    ),
    bug(
        "a new owner's partition is committed by the last one",
        "eventbus:KeyedDispatch.on_partitions_revoked",
        "for progress in before.values():\n    progress.current = False",
        "self._progress = before",
        f"{DISPATCH_TEST}::test_a_rebalance_finishes_what_began_and_leaves_the_rest",
    ),
    bug(
        "a consumer begins at the end",
        "eventbus:Consumer.join",
        "auto_offset_reset='earliest'",
        "auto_offset_reset='latest'",
    ),
    bug(
        "retry blocks the partition",
        "eventbus:Consumer._handle_or_park",
        "waits = policy.is_over(attempts, time.monotonic() - began) or await self.parking.holds(message)",
        "waits = await self.parking.holds(message)",
        f"{DELIVERY}::test_a_key_that_cannot_be_handled_waits_and_every_other_goes_on",
    ),
    bug(
        "later messages pass a parked one",
        "eventbus:Consumer._handle_or_park",
        "waits = policy.is_over(attempts, time.monotonic() - began) or await self.parking.holds(message)",
        "waits = policy.is_over(attempts, time.monotonic() - began)",
    ),
    bug(
        "dead letter without the original bytes",
        "eventbus:DeadLetterWriter.write",
        "await self._producer.send(topic, message.key, message.value, headers)",
        "await self._producer.send(topic, message.key, b'{}', headers)",
    ),
    bug(
        "dead letter before the retries",
        "eventbus:Attempts.attempt",
        "last = failed >= (self.policy.attempts_while_away if away else self.policy.attempts)",
        "last = failed >= 1",
    ),
    bug(
        "seen is written before the effect",
        "eventbus:ParkedRetries._try_in_order",
        "outcome = await self._attempt(claim)",
        "await self._parking.done(claim, math.inf)\noutcome = await self._attempt(claim)",
    ),
    bug(
        "a replayed letter goes to every consumer",
        "eventbus:Consumer._consume",
        "if message.headers.get(REPLAY_FOR, self._service) != self._service:",
        "if message.headers.get(REPLAY_FOR) == 'nobody':",
        "services/accounts/tests/test_dead_letters.py",
    ),
    bug(
        "a failed dead letter is forgotten",
        "eventbus:Attempts.give_up",
        "self._given_up_in_a_row += 1",
        "pass",
        f"{DELIVERY}::test_many_dead_letters_in_a_row_make_the_consumer_unready",
    ),
    bug(
        "parked order reversed",
        "eventbus:ParkedClaim.of",
        "first = document['messages'][0]",
        "first = document['messages'][-1]",
    ),
    bug(
        "a parked key is let go with its messages",
        "eventbus:Parking.done",
        "{**self._mine(claim), 'messages.1': {'$exists': False}}",
        "self._mine(claim)",
        f"{DELIVERY}::test_a_message_read_again_is_parked_once_and_a_full_key_holds_the_partition",
    ),
    bug(
        "a message read again is parked again",
        "eventbus:Parking.park",
        "'messages.place': {'$ne': place}, full",
        "full",
        f"{DELIVERY}::test_a_message_read_again_is_parked_once_and_a_full_key_holds_the_partition",
    ),
    bug(
        "a late worker finishes another's message",
        "eventbus:Parking._mine",
        "{'_id': claim.id, 'lease.fence': claim.fence, 'messages.0.place': claim.message.place}",
        "{'_id': claim.id}",
        f"{DELIVERY}::test_a_late_worker_of_a_parked_key_cannot_finish_a_later_message",
    ),
    bug(
        "a late worker goes on with the next message",
        "eventbus:Parking.done",
        "if time.monotonic() + CALL_SECONDS + seconds < claim.ends_at:",
        "if True:",
        f"{DELIVERY}::test_the_messages_of_a_parked_key_follow_each_other_under_one_lease",
    ),
    bug(
        "the simulation lacks what is asked of a server",
        "eventbus:Parking.failed",
        "{'$inc': {'messages.0.attempts': 1}, '$set'",
        "{'$mul': {'messages.0.attempts': 2}, '$set'",
    ),
    bug(
        "relay removes before the broker's ack",
        "eventbus:Relay._publish",
        "await self._publish_or_give_up(store, document, record)\n"
        "crash_point('relay.acked')\n"
        "await store.collection.update_one({'_id': document['_id']}, {'$pull': {'outbox': {'id': "
        "record['id']}}})",
        "await store.collection.update_one({'_id': document['_id']}, {'$pull': {'outbox': {'id': "
        "record['id']}}})\n"
        "await self._publish_or_give_up(store, document, record)",
    ),
    bug(
        "relay without a lease",
        "eventbus:Relay._hold_lease",
        "return False",
        "return True",
        f"{RELAY_TEST}::test_one_replica_relays_at_a_time",
    ),
    bug(
        "a relay asks for its lease only once",
        "eventbus:Relay._publish",
        "if not await self._hold_lease():",
        "if False:",
        f"{RELAY_TEST}::test_a_relay_that_lost_its_lease_between_two_events_publishes_no_more",
    ),
    bug(
        "relay publishes the newest first",
        "eventbus:Relay._publish",
        "for record in document['outbox']:",
        "for record in reversed(document['outbox']):",
    ),
    bug(
        "an event that cannot be published is tried for ever",
        "eventbus:Relay._publish_or_give_up",
        "except UNPUBLISHABLE as error:",
        "except ZeroDivisionError as error:",
        f"{RELAY_TEST}::test_what_cannot_be_published_is_given_up_and_the_rest_flows",
    ),
    bug(
        "a failing aggregate holds up all that waits beside it",
        "eventbus:Relay._publish_all",
        "failure = outcome",
        "raise outcome",
        f"{RELAY_TEST}::test_aggregates_whose_events_are_not_acknowledged_hold_up_no_others",
    ),
    bug(
        "while the broker is away all that waits is tried",
        "eventbus:Relay._oldest",
        "room = min(PARALLEL, MOST_FAILING - len(failing))",
        "room = PARALLEL",
        f"{RELAY_TEST}::test_while_the_broker_is_away_some_aggregates_are_tried_and_after_that_all_are_published",
    ),
    bug(
        "an event is given up for those it was sent together with",
        "eventbus:Producer.send",
        "isinstance(error, TOO_LARGE) and size > LARGE_MESSAGE_BYTES",
        "isinstance(error, TOO_LARGE)",
        f"{RELAY_TEST}::test_only_a_message_that_is_too_large_alone_is_refused_for_good",
    ),
    bug(
        "the newest event goes first",
        "eventbus:Relay._waiting",
        ".sort('outbox.0.at', 1)",
        ".sort('outbox.0.at', -1)",
        f"{RELAY_TEST}::test_the_oldest_goes_first",
    ),
    bug(
        "a relay without its lease still tells an age",
        "eventbus:Relay.drain",
        "self._let_go()",
        "pass",
        f"{RELAY_TEST}::test_a_relay_that_lost_its_lease_says_nothing_of_the_oldest_event",
    ),
    bug(
        "a worker that cannot start is ready",
        "runtime:Background.check_started",
        "state.failures >= MANY and (not state.has_run)",
        "False",
        "libs/runtime/tests/test_background.py::test_a_service_whose_worker_cannot_start_is_not_ready",
    ),
    bug(
        "work that waits before it fails passes for running",
        "runtime:SETTLED_SECONDS",
        "SETTLED_SECONDS = 60.0",
        "SETTLED_SECONDS = 10.0",
        "libs/runtime/tests/test_background.py::test_work_is_told_however_long_it_waits_before_it_fails",
    ),
    bug(
        "a topic keeps the partitions it was made with",
        "eventbus:_add_partitions",
        "if 0 < there.get(name, 0) < number}",
        "if False}",
        "libs/eventbus/tests/test_topics.py::test_a_topic_with_fewer_partitions_gets_more",
    ),
    bug(
        "a foreign message spoils the list of dead letters",
        "eventbus:DeadLetters._letter",
        "int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0",
        "int(attempts)",
        "libs/eventbus/tests/test_topics.py::test_foreign_messages_among_the_dead_letters_spoil_no_list",
    ),
    bug(
        "half a message is sent back",
        "eventbus:DeadLetters.replay",
        "if letter.cut:",
        "if False:",
        "libs/eventbus/tests/test_topics.py::test_a_letter_of_which_only_the_beginning_was_kept_is_not_sent_back",
    ),
    bug(
        "an event may be as large as it likes",
        "eventbus:AggregateStore._record",
        "check_size(envelope, data)",
        "pass",
        f"{RELAY_TEST}::test_an_event_that_is_too_large_is_refused_where_it_is_made",
    ),
    bug(
        "event outside the document's write",
        "eventbus:AggregateStore.save",
        "change['$push'] = {'outbox': {'$each': outbox}}",
        "await self.collection.update_one({'_id': aggregate.id}, {'$push': {'outbox': {'$each': outbox}}})",
    ),
    bug(
        "no compare-and-set on the version",
        "eventbus:AggregateStore.save",
        ", 'version': aggregate.version",
        "",
    ),
    Planted(
        "no fence check",
        (
            Edit("eventbus:AggregateStore.save", "query['lease.fence'] = fence", "query.pop('version')"),
            Edit(
                "eventbus:AggregateStore.update",
                "if fence is not None and aggregate.lease.fence != fence:",
                "if fence == -1:",
            ),
        ),
    ),
    bug(
        "a number is used twice",
        "eventbus:Aggregate.count",
        "self.sent = self.sent | {stream: self.sent.get(stream, 0) + 1}\nreturn self.sent[stream]",
        "return self.sent.get(stream, 0) + 1",
    ),
    bug(
        "tenant missing from a query",
        "eventbus:AggregateStore.find_one",
        "document = await self.collection.find_one({**query, 'tenant_id': tenant_id})",
        "document = await self.collection.find_one(query)",
        f"{DELIVERY}::test_another_tenant_finds_nothing",
    ),
    bug(
        "a document that cannot be read ends the sweep",
        "eventbus:AggregateStore.readable",
        "if (aggregate := self._read(document)) is not None:\n    yield aggregate",
        "yield self._load(document)",
        f"{UNREADABLE_TEST}::test_what_looks_at_all_tenants_looks_at_the_others",
    ),
    bug(
        "work that cannot be read is the oldest for ever",
        "eventbus:AggregateStore.claim",
        "if (aggregate := self._read(document)) is not None:\n    return aggregate",
        "return self._load(document)",
        f"{UNREADABLE_TEST}::test_a_worker_gets_the_others_and_finds_it_again_once_it_is_mended",
    ),
    bug(
        "heartbeat never stops the work",
        "stores:beat",
        "os.killpg(orders.group, signal.SIGKILL)",
        "await asyncio.sleep(3600)",
        f"{QUEUE_TEST}::test_the_heartbeat_keeps_the_lease_and_kills_the_work_when_it_is_lost",
    ),
    bug(
        "work that begins anew keeps the failures of before",
        "eventbus:AggregateStore.save",
        "anew = ANEW if aggregate.take_begins_anew() else {}",
        "anew = ANEW if False else {}",
        f"{QUEUE_TEST}::test_work_that_begins_anew_counts_anew_though_nobody_noted_that_it_had_ended",
    ),
    bug(
        "the client library drops what it cannot decode",
        "eventbus:decode",
        "return bytes(received.body)",
        "return __import__('faststream.message').message.decode_message(received)",
        f"{DELIVERY}::test_a_message_that_the_client_library_cannot_read_is_a_dead_letter",
    ),
    bug(
        "contract: an attribute asked for that was optional",
        "eventbus:event_of",
        "envelope = read_envelope(message.headers)",
        "envelope = read_envelope(message.headers)\n"
        "if not envelope.causationid:\n"
        "    raise __import__('schemas').MalformedEvent('no causationid')",
        f"{RECORDINGS}::test_what_handles_takes_recorded_messages",
    ),
    bug(
        "contract: a field renamed",
        "schemas:FinetuneTrained.suffix",
        "suffix: Id = Field(''",
        "name_suffix: Id = Field(''",
        f"{RECORDINGS}::test_nothing_of_a_recorded_message_is_lost",
    ),
    bug(
        "contract: a value no longer taken",
        "schemas:TenantPolicy.gate",
        "gate: Literal['auto', 'approval', 'advisory']",
        "gate: Literal['auto', 'approval']",
        f"{RECORDINGS}::test_what_handles_takes_recorded_messages",
    ),
    bug(
        "contract: a field left out at times",
        "schemas:KeyRevoked.key_hash",
        "key_hash: Id = Field(description='SHA-256 of the key: what caches are keyed by.')",
        "key_hash: Id | None = Field(None, description='SHA-256 of the key: what caches are keyed by.')",
        f"{RECORDINGS}::test_a_consumer_of_the_release_reads_what_is_said_today",
    ),
    Planted(
        "contract: headers renamed",
        (
            Edit("schemas:to_message", "f'ce_{name}': str(value)", "f'ce-{name}': str(value)"),
            Edit("schemas:read_envelope", "if name.startswith('ce_')", "if name.startswith('ce-')"),
        ),
        f"{RECORDINGS}::test_nothing_of_a_recorded_message_is_lost",
    ),
    bug(
        "contract: an attribute renamed",
        "schemas:Envelope.origin",
        "origin: str = Field(''",
        "stream: str = Field(''",
        f"{RECORDINGS}::test_nothing_of_a_recorded_message_is_lost",
    ),
    bug(
        "webhooks: one signs what was sent without its time",
        "schemas:_signature",
        "signed = f'{webhook_id}.{timestamp}.'.encode() + body",
        "signed = f'{webhook_id}.'.encode() + body",
        f"{WEBHOOKS}::test_the_openai_sdk_makes_tries_and_unwraps_webhooks",
    ),
)
