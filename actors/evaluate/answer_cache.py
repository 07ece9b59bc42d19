"""The evaluator's cache of greedy answers, also on disk: after a restart it continues a weighing or a watch where it
was.

Nothing else needs to be stored. A version's answer to a question never changes, and the order of a candidate's probes
follows from the seed.
"""

from collections.abc import Collection, Iterable, Sequence

from core.messages import PolicyRef
from core.messages.versions import Question
from core.store.facts import Answers
from core.store.records import Record
from core.store.writer import RunReader
from training.gate.guards import Answer


class AnswerCache(dict[tuple[PolicyRef, str], Answer]):
    def restore(self, reader: RunReader, questions: Iterable[Question]) -> None:
        """Load the cache from disk. Hits are computed again, because the probes' expected answers may have changed."""
        expected = {question.prompt.id: question.answer for question in questions}
        for version, answers in reader.read_all(Answers).items():
            ref = PolicyRef(version=int(version))
            for id, (value, tokens) in answers.root.items():
                if id in expected:
                    self[ref, id] = Answer(hit=value == expected[id], value=value, tokens=tokens)

    def records(self, refs: Collection[PolicyRef]) -> Sequence[Record]:
        """All cached answers of these versions, as records for the store."""
        bodies: dict[PolicyRef, dict[str, tuple[str | None, int]]] = {ref: {} for ref in refs}
        for (ref, id), answer in self.items():
            if ref in bodies:
                bodies[ref][id] = (answer.value, answer.tokens)
        return [Answers(body).record(ref.version) for ref, body in bodies.items()]

    def keep_only(self, refs: Collection[PolicyRef]) -> Sequence[Record]:
        """Drop all other versions; returns the records that delete them from the store."""
        gone = {ref for ref, _ in self if ref not in refs}
        for key in [key for key in self if key[0] in gone]:
            del self[key]
        return self.records(gone)
