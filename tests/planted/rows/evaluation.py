"""Bugs in scores, metrics and verdicts."""

from __future__ import annotations

from tests.planted.bug import Planted, bug

METRICS_TEST = "services/evaluator/tests/test_metrics.py"
EVALUATOR_TEST = "services/evaluator/tests/test_evaluator_service.py"
HELDOUT_TEST = "services/evaluator/tests/test_heldout_text.py"

BUGS: tuple[Planted, ...] = (
    bug(
        "four gains without a loss pass",
        "evaluator:Comparison.clear",
        "return self.interval.low > 0 and self.p_value <= ALPHA",
        "return self.interval.low > 0",
        "services/evaluator/tests/test_verdict.py",
    ),
    bug(
        "an answer of weight 0 is a reference",
        "evaluator:_parse_row",
        "learned = [place for place in answers if weights[place] != 0]",
        "learned = answers",
        "services/evaluator/tests/test_rows.py",
    ),
    bug(
        "macro means weigh classes that no row of a resample wants",
        "evaluator:_mean",
        "wanted = summed[WANTED] > 0",
        "wanted = summed[WANTED] >= 0",
        f"{METRICS_TEST}::test_rows_that_want_none_of_a_class_say_nothing_of_it",
    ),
    bug(
        "BLEU is the mean of each answer's own",
        "evaluator:SetMetric.interval",
        "self.value(counts[list(places)].sum(axis=0))",
        "float(np.mean([self.value(one) for one in counts[list(places)]]))",
        f"{METRICS_TEST}::test_a_metric_of_a_set_has_an_interval_that_narrows_with_the_rows",
    ),
    bug(
        "a judge is asked again for what it has answered",
        "evaluator:ByAnswers._score",
        "if metric.key not in answer.scores",
        "if metric.key",
        "services/evaluator/tests/test_suites.py"
        "::test_a_score_that_was_waited_for_is_asked_for_once_however_many_attempts_there_are",
    ),
    bug(
        "a judge is asked about every answer at once",
        "evaluator:Asking.each",
        "async with self._places:",
        "if True:",
        "services/evaluator/tests/test_suites.py::test_scores_are_waited_for_so_many_at_a_time",
    ),
    bug(
        "the scores of another judge are taken for this one's",
        "evaluator:AwaitedMetric.key",
        "return f'{self.name}_{hashlib.sha256(self.definition.encode()).hexdigest()[:16]}'",
        "return self.name",
        "services/evaluator/tests/test_suites.py::test_a_judge_that_is_another_than_before_judges_every_answer_itself",
    ),
    bug(
        "looking for an adapter is an attempt",
        "evaluator:Evaluation.put_off",
        "self.attempts = self.lease.failures",
        "self.attempts = self.lease.attempts",
        f"{EVALUATOR_TEST}::test_an_adapter_that_never_comes_is_left_to_a_person",
    ),
    bug(
        "candidates: another adapter is judged in its place",
        "evaluator:check_answerer",
        "if adapter_id != (evaluation.adapter_id if system == 'candidate' else None):",
        "if not evaluation:",
        f"{EVALUATOR_TEST}::test_a_candidate_that_is_answered_for_by_another_adapter_is_left_to_a_person",
    ),
    bug(
        "candidates: a proxy that is away costs an attempt",
        "evaluator:Evaluating.attempt",
        "raise PutOff(await self._evaluate.wait(one, error), error.message) from error",
        "raise Failed(error) from error",
        f"{EVALUATOR_TEST}::test_while_the_proxy_is_away_an_evaluation_is_put_off_and_counts_nothing",
    ),
    bug(
        "candidates: a full stop that is answered ends the wait",
        "evaluator:Evaluate.run",
        "for model in (evaluation.base_model, evaluation.model_id):\n"
        "    await self._proxy.expect(evaluation.tenant_id, model)",
        "for model in (evaluation.base_model, evaluation.model_id):\n"
        "    await self._proxy.expect(evaluation.tenant_id, model)\n"
        "evaluation = await self._evaluations.write(evaluation, Evaluation.find_adapter)",
        f"{EVALUATOR_TEST}::test_a_wait_that_no_answer_ends_is_one_wait_however_often_the_shortest_question_is_answered",
    ),
    bug(
        "candidates: a question that takes too long is put off",
        "evaluator:_patiently",
        "if isinstance(failure, (NotFound, RateLimited, Unreachable)) or failure.code == LOADING:",
        "if failure.code != BROKEN:",
        "services/evaluator/tests/test_proxy.py::test_an_answer_that_takes_too_long_counts_and_is_not_waited_for_again",
    ),
    bug(
        "candidates: a test that is given up cost nothing",
        "evaluator:Evaluate.give_up",
        "cost = price(await self._answers.of(evaluation))",
        "cost = None",
        f"{EVALUATOR_TEST}::test_what_was_answered_of_a_test_that_is_given_up_has_its_cost",
    ),
    bug(
        "deletion: a candidate that comes late is tested on rows that are gone",
        "evaluator:Queue.forget_rows",
        "await self._evaluations.note_deleted(deleted.tenant_id, deleted.heldout)",
        "pass",
        f"{EVALUATOR_TEST}::test_a_candidate_whose_rows_are_deleted_before_it_is_heard_of_is_not_tested",
    ),
    bug(
        "deletion: evidence outlives its model",
        "evaluator:Queue.sweep",
        "await self._artifacts.delete_evidence(evaluation)",
        "pass",
        f"{EVALUATOR_TEST}::test_the_evidence_goes_with_its_model_and_only_the_scores_stay",
    ),
    bug(
        "held-out text: a model that lost is let through",
        "evaluator.text_report:decide",
        "if found.high <= 0:",
        "if found.low >= 0:",
        f"{HELDOUT_TEST}::test_the_interval_of_the_gain_decides",
    ),
    bug(
        "held-out text: few documents decide",
        "evaluator.text_report:decide",
        "if n < fewest:",
        "if n < 1:",
        f"{HELDOUT_TEST}::test_few_documents_decide_nothing_however_clear_the_gain",
    ),
    bug(
        "held-out text: the candidate is compared with itself",
        "evaluator:model_of",
        "return evaluation.model_id if system == 'candidate' else evaluation.base_model",
        "return evaluation.model_id",
        f"{HELDOUT_TEST}::test_base_and_candidate_score_the_same_windows_once_and_none_holds_text_of_two_documents",
    ),
    bug(
        "held-out text: what is lost passes for what is gained",
        "evaluator:Perplexity.gain",
        "before - after for before, after",
        "after - before for before, after",
        f"{HELDOUT_TEST}::test_perplexity_is_e_to_the_mean_loss_and_a_gain_is_paired",
    ),
    bug(
        "held-out text: a window goes on where its document has ended",
        "evaluator:read_windows",
        "if not after <= one.start < one.end <= len(text):",
        "if not after <= one.start < one.end:",
        f"{HELDOUT_TEST}::test_places_that_are_not_in_the_text_are_refused",
    ),
    bug(
        "held-out text: what is served need not be what was trained",
        "evaluator.text_report:decide",
        "if abs(found.value - run_gain) > suite.tolerance:",
        "if suite.tolerance < 0:",
        f"{HELDOUT_TEST}::test_what_is_served_must_gain_what_the_run_measured",
    ),
    bug(
        "held-out text: passages of a few documents count as so many measurements",
        "evaluator:_units",
        "if unit == 'documents':",
        "if not windows:",
        f"{HELDOUT_TEST}::test_a_candidate_that_is_less_surprised_by_every_document_passes",
    ),
    bug(
        "held-out text: an engine that cannot score has refused some windows",
        "evaluator:Proxy.score",
        "if error.code != UNSUPPORTED:",
        "if error.code:",
        f"{HELDOUT_TEST}::test_an_engine_that_cannot_score_is_asked_once_and_a_person_decides",
    ),
)
