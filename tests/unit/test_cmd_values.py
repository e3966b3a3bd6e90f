import argparse

import testtools

from funcplat.cmd import failures, values


class SizeTests(testtools.TestCase):
    def test_a_plain_number_is_bytes(self):
        self.assertEqual(33554432, values.size("33554432"))

    def test_every_suffix_is_a_power_of_1024(self):
        for text in ("64M", "64m", "64MB", "64MiB", "64 MiB"):
            self.assertEqual(64 * 1024**2, values.size(text), text)
        self.assertEqual((1024, 2 * 1024**3), (values.size("1K"), values.size("2GiB")))

    def test_anything_else_is_refused_with_an_example(self):
        for text in ("", "M", "-1", "1.5M", "64X", "64MM"):
            with testtools.ExpectedException(argparse.ArgumentTypeError, ".*64MiB"):
                values.size(text)

    def test_people_see_the_largest_unit_that_divides_it(self):
        shown = [values.Size(size).human_readable() for size in (64 * 1024**2, 3 * 1024**3, 1536, 1000, 0)]
        self.assertEqual(["64 MiB", "3 GiB", "1536", "1000", "0"], shown)


class ArgumentTests(testtools.TestCase):
    def test_the_key_ends_at_the_first_equals_sign(self):
        self.assertEqual(("a", "b=c"), values.argument("a=b=c"))

    def test_a_key_is_needed(self):
        for text in ("", "=1", "name"):
            self.assertRaises(argparse.ArgumentTypeError, values.argument, text)

    def test_numbers_that_json_does_not_know_are_strings(self):
        for text in ("01", "NaN", "Infinity", "+1", "0x10", "True"):
            self.assertEqual(text, values.argument(f"a={text}")[1])

    def test_no_arguments_and_no_input_is_none(self):
        self.assertIsNone(values.function_input(None, []))

    def test_input_without_arguments_is_left_as_it_is(self):
        self.assertEqual(" [1, 2]", values.function_input(" [1, 2]", []))

    def test_a_file_that_is_not_text_is_a_usage_failure(self):
        self.assertRaises(failures.UsageFailure, values.function_input, "@/proc/self/exe", [])


class StructureTests(testtools.TestCase):
    def test_json_text_and_values_are_shown_alike(self):
        for value in ('{"a": 1}', {"a": 1}):
            self.assertEqual({"a": 1}, values.structure(value).machine_readable())

    def test_text_that_is_not_json_is_left(self):
        self.assertEqual("plain text", values.structure("plain text"))

    def test_null_is_nothing_for_people(self):
        for column in (values.structure(None), values.Size(None)):
            self.assertEqual(("", None), (column.human_readable(), column.machine_readable()))


class ExitCodeTests(testtools.TestCase):
    def test_statuses_and_codes_have_their_failures(self):
        expected = {
            (400, "invalid_request"): 2,
            (401, "unauthenticated"): 5,
            (403, "forbidden"): 5,
            (403, "in_use"): 7,
            (404, "not_found"): 4,
            (405, "not_downloadable"): 2,
            (409, "runtime_not_available"): 7,
            (413, "too_large"): 2,
            (500, "internal_error"): 3,
            (503, "overloaded"): 3,
        }
        self.assertEqual(expected, {key: failures.by_status(*key).exit_code for key in expected})
