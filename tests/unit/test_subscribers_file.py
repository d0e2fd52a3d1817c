# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of subscribers, parted by lists: what is sent of it are its lines, by the numbers that they have there."""

from __future__ import annotations

from io import BytesIO
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from hosting.sympa_subscribers import parse
from infini.subscribers import SubscribersFile

AMIS, LETTRE = "amis@x.test", "lettre@x.test"
CELLS = st.sampled_from([AMIS, "AMIS@x.test ", LETTRE, "other@x.test", "", "amis", "\t", "é"])
LINES = st.lists(st.tuples(CELLS, st.sampled_from(["\n", "\ta@x.test\n", "\tb@x.test\r\n", "\toops\n", "\t\n"])))


def read(content, numbers=None):
    lines = (line.decode("utf-8-sig") for line in BytesIO(content))
    return parse(lines, [AMIS, LETTRE], numbers)


@given(LINES, st.booleans(), st.sampled_from(["", "\ufeff"]))
def test_the_parts_are_the_whole(lines, cut, mark):
    content = (mark + "list\temail\n" + "".join(map("".join, lines))).encode()
    content = content[:-1] if cut and lines else content
    file = SubscribersFile(content)
    whole = read(content)
    for part in ([AMIS], [LETTRE], list(file.sums([], [], []))):
        sent, runs = file.lines(part)
        numbers = list(chain.from_iterable(range(first, first + count) for first, count in runs))
        assert len(numbers) == len(list(BytesIO(sent)))
        found = read(file.header.encode() + sent, numbers)
        assert found.lists == {address: them for address, them in whole.lists.items() if address in part}
        assert found.faulty == whole.faulty & set(part)
        assert set(found.faults) <= set(whole.faults)
    assert found.faults == whole.faults, "the last part is all of it"


def test_a_sum_tells_what_is_new_of_its_list_and_of_no_other():
    before = SubscribersFile(f"list\temail\n{AMIS}\ta@x.test\n{LETTRE}\tb@x.test\n".encode())
    after = SubscribersFile(f"list\temail\n{AMIS}\ta@x.test\n{LETTRE}\tc@x.test\n".encode())
    lists = [AMIS, LETTRE, "none@x.test"]
    one, other = before.sums(lists, [AMIS], []), after.sums(lists, [AMIS], [])
    assert one.keys() == set(lists)
    assert [address for address in lists if one[address] != other[address]] == [LETTRE]
    assert before.sums(lists, lists, [])[LETTRE] != one[LETTRE], "it is managed now"
    assert before.sums(lists, [AMIS], [LETTRE])[LETTRE] != one[LETTRE], "it is closed now"
    named = SubscribersFile(f"list\temail\tname\n{AMIS}\ta@x.test\n".encode())
    assert named.sums([AMIS], [AMIS], [])[AMIS] != one[AMIS], "the columns are others"
