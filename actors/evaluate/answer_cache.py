"""The greedy answers that the evaluator knows, kept on disk: one that dies over a weighing or a watch takes it up again
where it was. A version's answer to a question never changes, and a candidate's probes come in an order of its own, so
nothing else has to be kept."""

from collections.abc import Collection, Iterable, Sequence

from core.messages import PolicyRef
from core.messages.versions import Question
from core.store.facts import Answers
from core.store.records import Record
from core.store.writer import RunReader
from training.gate.guards import Answer


class AnswerCache(dict[tuple[PolicyRef, str], Answer]):
    def restore(self, reader: RunReader, questions: Iterable[Question]) -> None:
        """What is on disk. Whether it is a hit is said anew: the probes' own answers may have been changed."""
        expected = {question.prompt.id: question.answer for question in questions}
        for version, answers in reader.read_all(Answers).items():
            ref = PolicyRef(version=int(version))
            for id, (value, tokens) in answers.root.items():
                if id in expected:
                    self[ref, id] = Answer(hit=value == expected[id], value=value, tokens=tokens)

    def records(self, refs: Collection[PolicyRef]) -> Sequence[Record]:
        """All that is known of these versions, for the store."""
        bodies: dict[PolicyRef, dict[str, tuple[str | None, int]]] = {ref: {} for ref in refs}
        for (ref, id), answer in self.items():
            if ref in bodies:
                bodies[ref][id] = (answer.value, answer.tokens)
        return [Answers(body).record(ref.version) for ref, body in bodies.items()]

    def keep_only(self, refs: Collection[PolicyRef]) -> Sequence[Record]:
        """Forget the others; returns what makes the store forget them too."""
        gone = {ref for ref, _ in self if ref not in refs}
        for key in [key for key in self if key[0] in gone]:
            del self[key]
        return self.records(gone)
