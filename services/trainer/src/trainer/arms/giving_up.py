"""Has a job go on without an arm."""

from __future__ import annotations

from chassis.ids import now
from trainer.arms.lines import lines_of_failure, no_arm_line, tell_lines
from trainer.store import Jobs


async def give_up_arm(jobs: Jobs, tenant_id: str, job_id: str, why: str) -> bool:
    """Have a job expect no arm any more; whether it did.

    It is told before that, as nobody comes to it again then, and after, as its training may have ended meanwhile.

    Args:
        jobs: where jobs are kept.
        tenant_id: whose.
        job_id: which.
        why: for its owner.
    """
    expected = await jobs.get(tenant_id, job_id)
    expects = not expected.ended and expected.arm.state == "to_fit"
    if expects:
        expected.give_up_arm(now())
        await tell_lines(jobs, expected, [no_arm_line(why), *lines_of_failure(expected)])
    left = await jobs.update(tenant_id, job_id, lambda it: it.give_up_arm(now()))
    await tell_lines(jobs, left, lines_of_failure(left))
    return expects
