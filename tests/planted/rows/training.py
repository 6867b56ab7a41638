"""Bugs in training jobs, their processes, checkpoints and methods."""

from __future__ import annotations

from tests.planted.bug import Planted, bug

TRAINING = "services/trainer/tests/test_worker.py"
STATES = "services/trainer/tests/test_domain.py"
PRETRAIN_TEST = "services/trainer/tests/test_pretrain.py"
TEXT_JOBS = "services/trainer/tests/test_text_jobs.py"

BUGS: tuple[Planted, ...] = (
    bug(
        "a job drops a part of its dataset on the way to the model",
        "trainer:Job.finish_training",
        "dataset=self.learns_from",
        "dataset=self.learns_from.model_copy(update={'validation': None})",
        "tests/contract/test_datasets.py::test_what_ingest_says_of_a_dataset_arrives_whole_at_the_evaluation",
    ),
    bug(
        "a spoilt checkpoint fails the job",
        "trainer:Training.attempt",
        "if error.code == 'checkpoint_corrupt':",
        "if error.code == '':",
    ),
    bug(
        "a job that cannot be begun ends the sweep",
        "trainer:Sweep._begin",
        "except PyMongoError:",
        "except Exception:",
        f"{TRAINING}::test_a_job_that_cannot_be_begun_holds_up_no_other_and_no_deletion",
    ),
    bug(
        "a run that was done before it could stop is thrown away",
        "trainer:TrainingProcess.follow",
        "if self._halted == 'queued' and code == 0 and self.last:",
        "if False:",
        f"{TRAINING}::test_a_run_that_was_done_before_it_could_stop_is_not_thrown_away",
    ),
    bug(
        "cancel ignored after training",
        "trainer:Job.finish_training",
        "self._expect(*CLAIMABLE)",
        "self._expect(*CLAIMABLE, 'cancelled')",
        STATES,
    ),
    bug(
        "an ended job succeeds",
        "trainer:Job.succeed",
        "if self.ended:\n    return",
        "pass",
        STATES,
    ),
    bug(
        "an older word about a model is taken",
        "trainer:Job.wait",
        "if self.state != 'evaluating' or waiting.revision <= self.gate.revision:",
        "if self.state != 'evaluating':",
        STATES,
    ),
    bug(
        "an upload's job has a random id",
        "trainer:Requests.create_for",
        "id=derived_id('ftjob-', prepared.dataset.dataset_id)",
        "id=new_id('ftjob-')",
    ),
    bug(
        "a request fails after its job was stored",
        "trainer:Requests._add",
        "except (SartorError, PyMongoError) as error:",
        "except SartorError as error:",
        "services/trainer/tests/test_service.py::test_a_stored_job_is_accepted_whatever_fails_afterwards",
    ),
    bug(
        "every checkpoint is kept while a job runs",
        "trainer:TrainingProcess._keep_checkpoint",
        "await self._objects.delete_older_checkpoints(job)",
        "pass",
        f"{TRAINING}::test_the_last_two_checkpoints_are_kept_and_none_once_the_adapter_is_stored",
    ),
    bug(
        "a long job keeps others waiting",
        "trainer:TrainingProcess._keep_checkpoint",
        "job.state == 'running' and await self._held.others_wait():",
        "False:",
        f"{TRAINING}::test_a_long_job_gives_its_place_to_a_tenant_who_waits_and_goes_on_where_it_was",
    ),
    bug(
        "a late attempt deletes what the next one stores",
        "trainer:JobObjects.delete_older_checkpoints",
        "int(attempt[1]) <= job.lease.fence",
        "int(attempt[1]) > 0",
        f"{TRAINING}::test_what_a_later_attempt_stores_is_left_alone",
    ),
    bug(
        "a repeated request makes another job",
        "trainer:Requests.create",
        "id=request_id_for('ftjob-', new_id('ftjob-'))",
        "id=new_id('ftjob-')",
    ),
    bug(
        "a job is done before its adapter is stored",
        "trainer:JobObjects._upload",
        "if path.name != MANIFEST:",
        "if path.name == MANIFEST:",
    ),
    bug(
        "a checkpoint's hash is not checked",
        "trainer:verify",
        "if sha256(folder / name) != file['sha256']:",
        "if file['sha256'] == '':",
        "services/trainer/tests/test_lora.py::test_a_damaged_or_foreign_checkpoint_is_refused",
    ),
    bug(
        "a checkpoint is seen before its manifest",
        "trainer:publish",
        "draft = target.with_name(f'.{target.name}.draft')",
        "draft = target",
        "services/trainer/tests/test_lora.py::test_no_checkpoint_is_seen_before_its_manifest",
    ),
    bug(
        "training outlives its service",
        "trainer:build",
        "service.on_stop(fork_server.close)",
        "pass",
        f"{TRAINING}::test_what_runs_are_forked_from_ends_with_the_service",
    ),
    bug(
        "deletion: a job that was trained meanwhile loses its adapter with its rows",
        "trainer:Job.lose_data",
        "if self.rests_on(data_id):\n    self.fail(failure, at)",
        "self.fail(failure, at)",
        "services/trainer/tests/test_service.py"
        "::test_a_job_that_is_trained_while_its_rows_are_deleted_keeps_its_adapter",
    ),
    bug(
        "deletion: rows that are heard of after their deletion are trained on",
        "trainer:Jobs.dataset",
        "if found.get('prepared') and (not found.get('deleted')):",
        "if found.get('prepared'):",
        "services/trainer/tests/test_service.py"
        "::test_rows_that_were_deleted_before_they_were_heard_of_are_trained_on_by_no_job",
    ),
    bug(
        "deletion: the adapter of a deleted model stays stored",
        "trainer:Sweep._delete_adapters",
        "if shared == 'no':\n    await self._objects.delete_adapter(job)",
        "pass",
        f"{TRAINING}::test_the_files_of_a_discarded_adapter_go_but_not_those_that_another_job_keeps",
    ),
    bug(
        "deletion: the adapter of a living model is removed",
        "trainer:Job.succeed",
        "self.state, self.fine_tuned_model, self.finished_at = ('succeeded', model_id, at)",
        "self.state, self.fine_tuned_model, self.finished_at = ('succeeded', model_id, at)\nself.discard_adapter()",
    ),
    bug(
        "deletion: the adapter goes that another job keeps",
        "trainer:Jobs.shares_adapter",
        "if await self._jobs.collection.find_one({**others, **same}, {'_id': 1}) is not None:",
        "if same is None:",
        f"{TRAINING}::test_the_files_of_a_discarded_adapter_go_but_not_those_that_another_job_keeps",
    ),
    bug(
        "pretrain: text that is held out is learned too",
        "trainer:Pretrain.read",
        "train=Examples(windows_of(parts.train), repeated=repeated)",
        "train=Examples(windows_of([*parts.train, *parts.heldout]), repeated=repeated)",
        f"{PRETRAIN_TEST}::test_a_window_is_of_one_document_and_every_token_is_a_target_once",
    ),
    bug(
        "pretrain: the end of an only document is learned before it is held out",
        "trainer:split_sections",
        "learned = [tokens[:to_validate] if",
        "learned = [tokens if",
        f"{PRETRAIN_TEST}::test_of_one_document_the_end_is_held_out_and_that_is_said",
    ),
    bug(
        "pretrain: the base model is measured with the adapter",
        "trainer:Pretrain.measure",
        "with model.without_adapter():",
        "if True:",
        f"{PRETRAIN_TEST}::test_perplexity_of_held_out_documents_falls_and_is_published",
    ),
    bug(
        "pretrain: a window goes on into the next document",
        "trainer:Pretrain.read",
        "[window for tokens in part for window in windows(tokens, longest, start)]",
        "list(windows([token for tokens in part for token in tokens], longest, start))",
        f"{PRETRAIN_TEST}::test_a_window_is_of_one_document_and_every_token_is_a_target_once",
    ),
    bug(
        "pretrain: passages end with their window, so short texts have none",
        "trainer:independent",
        "tokens = list(chain.from_iterable(losses))",
        "tokens = next(iter(losses))",
        f"{PRETRAIN_TEST}::test_passages_are_cut_across_windows_and_leave_out_no_token",
    ),
    bug(
        "pretrain: many passages of few documents count as many measurements",
        "trainer:independent",
        "if documents:",
        "if not losses:",
        f"{PRETRAIN_TEST}::test_whole_documents_are_what_is_independent_of_each_other",
    ),
    bug(
        "pretrain: two short documents are held out and that decides",
        "trainer:_enough",
        "if size >= FEWEST_HELDOUT:",
        "if taken:",
        f"{PRETRAIN_TEST}::test_whatever_the_documents_enough_is_held_out_and_half_is_learned",
    ),
    bug(
        "pretrain: a job on a file that cannot be read waits for its text for ever",
        "trainer:_became_text",
        "return rejected.purpose == 'user_data' and rejected.code in BECAME_TEXT",
        "return True",
        f"{TEXT_JOBS}::test_a_file_that_cannot_be_read_fails_the_job",
    ),
    bug(
        "pretrain: a job on a text of which no event was heard waits for ever",
        "trainer:JobData._advance_on_text",
        "text = text or await self._ask(job)",
        "text = text",
        f"{TEXT_JOBS}::test_a_file_that_was_read_before_anybody_listened_is_asked_for",
    ),
    bug(
        "pretrain: windows longer than the installation allows are made shorter without a word",
        "trainer:Requests.create",
        "self._data.check(asked.hyperparameters)",
        "pass",
        f"{TEXT_JOBS}::test_what_a_method_cannot_use_is_refused_by_its_name",
    ),
    bug(
        "pretrain: of an only document its beginning, which is learned, passes for held out",
        "trainer:places",
        "for begin in range(first, n_tokens + 1, longest)",
        "for begin in range(0, n_tokens + 1 - first, longest)",
        f"{PRETRAIN_TEST}::test_of_an_only_document_the_windows_of_its_end_are_listed",
    ),
)
