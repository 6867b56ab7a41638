"""The evaluator's settings."""

from __future__ import annotations

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the evaluator reads from the environment besides the settings every service has. Times are in seconds."""

    evaluator_slots: int = Field(2, ge=1, description="Evaluations one replica runs at a time.")
    evaluator_parallel: int = Field(16, ge=1, description="Questions asked of inference_proxy at a time, all slots.")
    evaluator_arm_parallel: int = Field(
        8, ge=1, description="Questions at a time in tests of arms, which have these places to themselves."
    )
    evaluator_rows: int = Field(100, ge=1, description="Most held-out rows used for one evaluation.")
    evaluator_generating_rows: int = Field(
        16, ge=1, description="Most held-out rows used for an arm by which the base model answers: people wait for it."
    )
    evaluator_min_rows: int = Field(
        10, ge=1, description="Fewer rows than this never decide about an adapter without a person."
    )
    evaluator_windows: int = Field(
        200, ge=1, description="Most windows of held-out text scored for one evaluation; documents share them alike."
    )
    evaluator_max_tokens: int = Field(256, ge=1, description="Most tokens of one answer.")
    evaluator_few_shot_examples: int = Field(32, ge=0, description="Most examples in the few-shot prompt.")
    evaluator_few_shot_tokens: int = Field(1024, ge=0, description="Most tokens all few-shot examples may take.")
    evaluator_answer_seconds: float = Field(120.0, description="Deadline of one answer.")
    evaluator_adapter_seconds: float = Field(
        3600.0,
        description="How long an evaluation waits until its systems can be asked before a person is asked to decide.",
    )
    evaluator_attempts: int = Field(20, ge=1, description="Attempts before a person is asked to decide without scores.")
    evaluator_retry_seconds: float = Field(
        15.0, description="Wait after the first failed attempt; it grows to 20 times that."
    )
    evaluator_lease_seconds: float = Field(30.0, description="Length of a worker's lease; renewed at a quarter of it.")
    evaluator_poll_seconds: float = Field(2.0, description="How often an idle worker looks for work.")
