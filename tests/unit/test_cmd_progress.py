import io
import itertools

import testtools

from funcplat.cmd import progress

MIB = 1024 * 1024


class Terminal(io.StringIO):
    def isatty(self):
        return True


class ProgressTests(testtools.TestCase):
    def draw(self, total, counts, step=1.0):
        terminal = Terminal()
        clock = itertools.count(0.0, step)
        with progress.Bar("upload", total, terminal, lambda: next(clock)) as bar:
            for count in counts:
                bar(count)
        return [line.rstrip() for line in terminal.getvalue().split("\r")[1:]]

    def test_it_fills_up(self):
        lines = self.draw(4 * MIB, [MIB, 3 * MIB])
        self.assertEqual(f"upload [{'=' * 7}{' ' * 23}]  25% 1.0 of 4.0 MiB", lines[0])
        self.assertEqual(f"upload [{'=' * 30}] 100% 4.0 of 4.0 MiB", lines[-1])

    def test_it_is_not_drawn_for_every_chunk(self):
        self.assertLess(len(self.draw(100 * MIB, [MIB] * 100, step=0.001)), 10)

    def test_an_unknown_total_shows_what_came(self):
        self.assertEqual("upload 2.0 MiB", self.draw(None, [2 * MIB])[-1])

    def test_files_see_nothing(self):
        stream = io.StringIO()
        with progress.bar("upload", 10 * MIB, stream) as bar:
            bar(MIB)
        self.assertEqual("", stream.getvalue())

    def test_what_is_small_is_not_shown(self):
        terminal = Terminal()
        with progress.bar("upload", MIB, terminal) as bar:
            bar(MIB)
        self.assertEqual("", terminal.getvalue())
