"""Bugs in what people and outside services see: events, webhooks, pages, commands."""

from __future__ import annotations

from tests.planted.bug import Planted, bug

GATEWAY_RULES = "services/event_gateway/tests/test_domain.py"
PUBLISHING = "services/event_gateway/tests/test_publishing.py"
READING = "services/event_gateway/tests/test_reading.py"
SENDING = "services/event_gateway/tests/test_sending.py"
WEBHOOKS = "services/event_gateway/tests/test_webhooks.py"
NAVIGATION = "services/console/tests/test_navigation.py"
CONSOLE = "services/console/tests/test_console_service.py"
ARM_PAGES = "services/console/tests/test_arm_pages.py"
PROGRESS = "services/console/tests/test_console_progress.py"
COMMANDS = "cli/tests/test_api_commands.py"

BUGS: tuple[Planted, ...] = (
    bug(
        "outside events: a tenant in the attributes is believed",
        "event_gateway:checked_data",
        "if tenant not in (None, producer.tenant_id):",
        "if tenant not in (None, sent.tenantid, producer.tenant_id):",
        f"{GATEWAY_RULES}::test_what_is_refused_names_the_place",
    ),
    bug(
        "outside events: a key publishes what it does not name",
        "event_gateway:checked_data",
        "if sent.type not in PUBLISHABLE or sent.type not in producer.event_types:",
        "if sent.type not in PUBLISHABLE:",
        f"{GATEWAY_RULES}::test_a_key_publishes_the_types_it_names_and_no_others",
    ),
    bug(
        "outside events: an id of the sender's own choice is published",
        "event_gateway:checked_data",
        "own = derived_id(ID_PREFIXES[kind.type], producer.tenant_id, given)",
        "own = given",
        f"{GATEWAY_RULES}::test_what_is_published_is_the_tenants_and_says_who_said_it",
    ),
    bug(
        "outside events: another body under the same id is taken for the first",
        "event_gateway:Received.expect",
        "if self.digest != digest_of(sent):",
        "if not self.digest:",
        f"{PUBLISHING}::test_an_id_used_again_for_another_event_is_a_conflict",
    ),
    bug(
        "outside events: a list is published up to its first wrong event",
        "event_gateway:Publish.run",
        "checked = [await self._checked(producer, one, place, many, seen) for place, one in "
        "enumerate(events)]\n"
        "return [await self._publish(producer, sent, fresh) for sent, fresh in checked]",
        "return [await self._publish(producer, *await self._checked(producer, one, place, many, seen)) "
        "for place, one in enumerate(events)]",
        f"{PUBLISHING}::test_a_list_is_published_whole_or_not_at_all",
    ),
    bug(
        "outside events: a list with two bodies under one id is published up to the second",
        "event_gateway:Publish._checked",
        "seen.setdefault(fresh.id, fresh).expect(sent)",
        "seen.setdefault(fresh.id, fresh)",
        f"{PUBLISHING}::test_a_list_is_published_whole_or_not_at_all",
    ),
    bug(
        "outside events: the way in which an event comes makes it another one",
        "event_gateway:digest_of",
        "exclude={'datacontenttype'}",
        "exclude=set()",
        f"{PUBLISHING}::test_an_event_comes_in_headers_too",
    ),
    bug(
        "event streams: one outlives its key while there is something to read",
        "event_gateway:CHECK_SECONDS",
        "CHECK_SECONDS = 1.0",
        "CHECK_SECONDS = 1000000000.0",
        f"{READING}::test_a_stream_ends_with_its_key_however_much_there_is_to_read",
    ),
    bug(
        "event streams: those that open at once are not counted",
        "event_gateway:CountedStream.__call__",
        "with self._place:",
        "if self._place:",
        f"{READING}::test_a_burst_gets_no_more_places_than_there_are",
    ),
    bug(
        "event log: what goes while a page is looked for is passed over",
        "event_gateway:Log.page",
        "found = await page(self._entries, query, [('number', 1)], limit=limit)\n"
        "if after is not None:\n"
        "    await self._expect_kept(tenant_id, after, head)",
        "if after is not None:\n"
        "    await self._expect_kept(tenant_id, after, head)\n"
        "found = await page(self._entries, query, [('number', 1)], limit=limit)",
        f"{READING}::test_events_that_go_while_a_page_is_looked_for_are_not_passed_over",
    ),
    bug(
        "event log: a key reads what its person's role of today may not",
        "event_gateway:readable_types",
        "ROLES.get(principal.owner_role or principal.role",
        "ROLES.get(principal.role or principal.owner_role",
        f"{GATEWAY_RULES}::test_a_key_reads_no_more_than_its_persons_role_of_today",
    ),
    bug(
        "event log: an event whose place was taken is lost",
        "event_gateway:Log.append",
        "continue",
        "pass",
        f"{READING}::test_events_that_come_together_get_places_of_their_own",
    ),
    bug(
        "event log: a reader whose events are gone is told of none",
        "event_gateway:Log._expect_kept",
        "if after > head or oldest is None or oldest['number'] > after + 1:",
        "if after > head:",
        f"{READING}::test_a_tenant_has_its_newest_events_and_is_told_of_a_gap",
    ),
    bug(
        "event log: an empty page ends behind an event that is yet to come",
        "event_gateway:Log.page",
        "found[-1]['number'] if len(found) == limit else head",
        "found[-1]['number'] if found else head + 1",
        f"{READING}::test_a_tenant_reads_its_own_events_in_order_and_none_twice",
    ),
    bug(
        "event log: one reads what one's role may not",
        "event_gateway:readable_types",
        "if covers(role, seen.scope) and covers(today, seen.scope)}",
        "if role}",
        f"{GATEWAY_RULES}::test_a_role_reads_what_it_may_and_no_more",
    ),
    bug(
        "webhooks: an address inside is reached by a name",
        "event_gateway:WebhookSender._target",
        "if not self._to_inside and (not all(map(is_outside, addresses))):",
        "if not self._to_inside and (not addresses):",
        f"{GATEWAY_RULES}::test_no_webhook_goes_inside_or_in_the_clear",
    ),
    bug(
        "webhooks: an IPv4 address inside an IPv6 one is not looked at",
        "event_gateway:is_outside",
        "carried = address.ipv4_mapped or address.sixtofour",
        "carried = address.ipv4_mapped",
        f"{GATEWAY_RULES}::test_no_address_inside_passes_for_one_outside",
    ),
    bug(
        "webhooks: a site's own addresses pass for public ones",
        "event_gateway:is_outside",
        "if address not in IPV6_PUBLIC:",
        "if address.is_unspecified:",
        f"{GATEWAY_RULES}::test_no_address_inside_passes_for_one_outside",
    ),
    bug(
        "webhooks: a cloud's own addresses pass for public ones",
        "event_gateway:is_outside",
        "if any((address in network for network in NOT_PUBLIC)):",
        "if address.is_unspecified:",
        f"{GATEWAY_RULES}::test_no_address_inside_passes_for_one_outside",
    ),
    bug(
        "webhooks: the name is looked up again by who connects",
        "event_gateway:WebhookSender.send",
        "target.url.copy_with(host=target.at)",
        "target.url",
        f"{SENDING}::test_the_address_that_was_looked_at_is_connected_to_and_asked_by_name",
    ),
    bug(
        "webhooks: a host outside ASCII cannot be asked",
        "event_gateway:WebhookSender.send",
        "headers['host'] = target.url.netloc.decode('ascii')",
        "headers['host'] = target.url.host",
        f"{SENDING}::test_the_address_that_was_looked_at_is_connected_to_and_asked_by_name",
    ),
    bug(
        "webhooks: a receiver is sent another's cookie",
        "event_gateway:WebhookSender.__init__",
        "cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[]))",
        "cookies=None",
        f"{SENDING}::test_no_receiver_is_sent_anothers_cookie",
    ),
    bug(
        "webhooks: a name that was given up frees its place while a thread looks it up",
        "event_gateway:Names.addresses",
        "found = await asyncio.shield(lookup)",
        "found = await lookup",
        f"{SENDING}::test_a_name_that_was_given_up_keeps_its_place_while_it_is_looked_up",
    ),
    bug(
        "webhooks: an address at which the sender stumbles is tried for ever",
        "event_gateway:Deliveries._sent",
        "except Exception as error:",
        "except OSError as error:",
        f"{WEBHOOKS}::test_a_delivery_that_breaks_ends_no_other",
    ),
    bug(
        "webhooks: receivers of one tenant that hang take every place",
        "event_gateway:Deliveries._claim",
        "if many >= settings.webhook_deliveries_per_tenant]",
        "if many < 0]",
        f"{WEBHOOKS}::test_receivers_that_hang_hold_up_neither_the_tenants_others_nor_other_tenants",
    ),
    bug(
        "webhooks: an engineer leads what an admin is told of keys elsewhere",
        "event_gateway:Endpoints.change",
        "readable_types(maker, endpoint.types)",
        "pass",
        f"{WEBHOOKS}::test_what_is_sent_of_anothers_events_is_not_led_elsewhere",
    ),
    bug(
        "webhooks: an engineer has sent again what an admin was told of keys",
        "event_gateway:Endpoints.replay",
        "readable_types(maker, {*endpoint.types, delivery.event_type})",
        "readable_types(maker, endpoint.types)",
        f"{WEBHOOKS}::test_what_is_sent_of_anothers_events_is_not_led_elsewhere",
    ),
    bug(
        "webhooks: a redirect is followed inside",
        "event_gateway:WebhookSender.__init__",
        "follow_redirects=False",
        "follow_redirects=True",
        f"{WEBHOOKS}::test_a_delivery_that_fails_is_tried_again_under_the_same_id",
    ),
    bug(
        "webhooks: a delivery is tried for ever",
        "event_gateway:Delivery.ended",
        "elif outcome.over or outcome.gone or self.attempts >= most:",
        "elif outcome.over or outcome.gone:",
        f"{GATEWAY_RULES}::test_a_delivery_is_tried_again_and_then_parked",
    ),
    bug(
        "webhooks: deliveries to an endpoint that is away pile up",
        "event_gateway:KeepEvent.run",
        "if await self._webhooks.is_full(endpoint, self._most_waiting):",
        "if self._most_waiting < 0:",
        f"{WEBHOOKS}::test_an_endpoint_that_is_away_holds_up_nobody_and_only_so_much",
    ),
    bug(
        "deletion: a page deletes without the name",
        "console:_add",
        "if ' '.join(fields.get('name', '').split()) != ' '.join(doomed.name.split()):",
        "if False:",
        "services/console/tests/test_deletion_pages.py::test_its_name_is_asked_for_and_what_stays_is_said",
    ),
    bug(
        "people: the operator finds pages of organizations",
        "console:Web.session",
        "if session.role == 'operator':",
        "if False:",
        f"{NAVIGATION}::test_the_operator_finds_no_page_of_an_organization",
    ),
    bug(
        "people: sessions outlive the password they began with",
        "console:Sessions._look_again",
        "or standing.password_changed_at != session.password_changed_at",
        "or False",
        f"{NAVIGATION}::test_another_password_ends_the_other_sessions",
    ),
    bug(
        "people: the operator's session outlives the key",
        "console:Sessions._look_again",
        "known = await self._accounts.ask(VERIFY, json={'key_hash': session.key_hash}, tenant_id='')",
        "known = {'role': 'operator'}",
        f"{NAVIGATION}::test_the_operators_session_ends_with_the_key",
    ),
    bug(
        "people: anybody finds the operator's pages",
        "console:Web.operator",
        "if session.role != 'operator':",
        "if False:",
        f"{NAVIGATION}::test_the_operators_pages_are_for_the_operator",
    ),
    bug(
        "people: the first page asks for files whoever looks",
        "console:home_routes",
        "_asked(may('files:read'), NO_FILES, ingest",
        "_asked(True, NO_FILES, ingest",
        f"{NAVIGATION}::test_a_home_asks_only_for_what_its_role_may_see",
    ),
    bug(
        "console: a file's oldest job says how it stands",
        "console:home_routes",
        "for job in reversed(jobs['data'])}",
        "for job in jobs['data']}",
        f"{CONSOLE}::test_the_newest_job_of_a_file_says_how_it_stands",
    ),
    bug(
        "console: a list ends where its first page does",
        "console:Listed.older",
        "return str(self.rows[-1]['id']) if self.has_more and self.rows else None",
        "return None",
        f"{CONSOLE}::test_every_list_can_be_read_to_its_end",
    ),
    bug(
        "console: an open page reads a job's events at every look",
        "console:Watcher._of_job",
        "if stage == 'training' or happened:",
        "if True:",
        f"{PROGRESS}::test_a_page_left_open_asks_little",
    ),
    bug(
        "console: an open page asks for a model's versions at every look",
        "console:Watcher._of_job",
        "if happened and stage != 'waiting_for_file':",
        "if stage != 'waiting_for_file':",
        f"{ARM_PAGES}::test_the_stream_tells_when_the_first_answer_is_there_and_asks_for_versions_only_then",
    ),
    bug(
        "console: the versions of another job tell when a model first answered",
        "console:Watcher._read_versions",
        "if card['job_id'] == seen.job_id",
        "if card['job_id']",
        f"{ARM_PAGES}::test_the_first_answer_is_that_of_the_version_that_served_first",
    ),
    bug(
        "console: the evidence of a name is shown for that of its version",
        "console:model_routes",
        "params={'model': card['id']}",
        "params={'model': name}",
        f"{ARM_PAGES}::test_the_versions_of_a_model_are_a_table_and_a_picture",
    ),
    bug(
        "console: an open page never looks less often",
        "console:_watch",
        "pause = min(PAUSE_GROWTH * pause, SLOWEST_POLL_SECONDS)",
        "pause = POLL_SECONDS",
        f"{PROGRESS}::test_a_page_that_shows_nothing_new_looks_less_often",
    ),
    bug(
        "console: a session follows any number of pages",
        "console:Streams.opened",
        "while len(mine) > self._most:",
        "while False:",
        f"{PROGRESS}::test_the_newest_pages_of_a_session_are_followed",
    ),
    bug(
        "console: the reference shows routes between services",
        "console:merged",
        "if path.startswith(PUBLIC):",
        "if True:",
        "services/console/tests/test_reference.py::test_public_routes_are_merged_and_internal_ones_left_out",
    ),
    bug(
        "command line: a changed file of a copy is kept",
        "sartor_cli:_compare",
        "if _sha256(folder / name) != facts['sha256']:",
        "if False:",
        "cli/tests/test_adapter_folder.py::test_of_what_is_not_the_stored_adapter_nothing_is_kept",
    ),
    bug(
        "command line: another adapter is kept for the one that was asked for",
        "sartor_cli:_compare",
        "if _sha256(folder / MANIFEST) != manifest_sha256:",
        "if False:",
        "cli/tests/test_adapter_folder.py::test_of_what_is_not_the_stored_adapter_nothing_is_kept",
    ),
    bug(
        "command line: ids are cut to the terminal",
        "sartor_cli:show_rows",
        "width=max(least, console.width)",
        "width=console.width",
        f"{COMMANDS}::test_what_is_shown_can_be_read_and_copied",
    ),
    bug(
        "command line: an id chooses the route",
        "sartor_cli:Client.call",
        "quote(one, safe='')",
        "one",
        f"{COMMANDS}::test_what_is_typed_does_not_choose_the_route",
    ),
    bug(
        "command line: nobody hears what a followed job waits for",
        "sartor_cli:job_logs",
        "if waits and waits != waited:",
        "if False:",
        f"{COMMANDS}::test_a_followed_job_says_whom_it_waits_for_and_ends",
    ),
)
