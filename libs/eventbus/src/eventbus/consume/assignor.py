"""How a consumer group gives out partitions: never by half of what the broker knows."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError

log = structlog.get_logger()


class WholeRoundRobin(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """Gives out partitions in turns, once the broker has told of every topic.

    A broker whose storage is away for a moment tells of some topics and fails for others. By that half nobody reads the
    others, and nothing looks wrong, until the leader hears of them and the group is formed anew; a broker that
    answers a leader who joins again by what was given out before never gets that far. So nothing is given out
    meanwhile: the group reads nothing for as long, a service that starts exits, and one that runs tries again.
    """

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The partitions of each member.

        Raises:
            KafkaError: the broker did not tell of a topic.
        """
        topics = {topic for member in members.values() for topic in member.subscription}
        if untold := sorted(topic for topic in topics if not cluster.partitions_for_topic(topic)):
            log.warning("topics_untold", topics=untold)
            raise KafkaError(f"The broker told of no partitions of {', '.join(untold)}; nothing is given out.")
        given: dict[str, ConsumerProtocolMemberAssignment] = super().assign(cluster, members)
        return given
