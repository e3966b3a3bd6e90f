"""Packages that strangers made: each kind of attack gets its code, each valid archive gets in."""

from __future__ import annotations

import io
import pathlib
import struct
import time
import tracemalloc
import zipfile
import zlib

import hypothesis
import testtools
from hypothesis import strategies as st

from funcplat import errors
from funcplat.core import packages
from tests.unit.crafted import DEFLATED, DIRECTORY, FILE, STORED, Member, archive, deflate

MIB = 1024 * 1024
LIMITS = packages.PackageLimits(max_size=64 * MIB, members=50, depth=4, unpacked_size=32 * MIB, ratio=200)
GOOD = Member(b"main.py", b"def main(): pass\n")


def check(data: bytes, limits: packages.PackageLimits = LIMITS) -> None:
    packages.check(io.BytesIO(data), len(data), limits)


class Refusal(testtools.TestCase):
    def refused(
        self,
        kind: type[errors.InvalidPackage],
        data: bytes,
        *words: str,
        limits: packages.PackageLimits = LIMITS,
    ) -> None:
        error = self.assertRaises(errors.InvalidPackage, check, data, limits)
        self.assertIs(kind, type(error), error.message)
        for word in words:
            self.assertIn(word, error.message)
        self.assertLess(len(error.message), 300)


class NotAZipTests(Refusal):
    def test_an_empty_upload_is_refused(self) -> None:
        self.refused(errors.InvalidPackage, b"", "not a valid ZIP package", "empty")

    def test_a_text_file_is_refused(self) -> None:
        self.refused(errors.InvalidPackage, b"def main():\n    pass\n" * 10, "not a valid ZIP package")

    def test_an_archive_without_members_is_refused(self) -> None:
        self.refused(errors.InvalidPackage, archive([]), "no members")

    def test_a_truncated_archive_is_refused_wherever_it_is_cut(self) -> None:
        data = archive([GOOD, Member(b"a.txt", b"a" * 100, DEFLATED)])
        for length in range(len(data)):
            self.refused(errors.InvalidPackage, data[:length])

    def test_bytes_before_the_first_member_are_refused(self) -> None:
        self.refused(errors.InvalidPackage, archive([GOOD], prefix=b"#!/bin/sh\n"), "before its first member")

    def test_a_self_extracting_archive_with_unadjusted_offsets_is_refused(self) -> None:
        self.refused(errors.InvalidPackage, b"#!/bin/sh\n" + archive([GOOD]))

    def test_bytes_after_the_end_are_refused(self) -> None:
        self.refused(errors.InvalidPackage, archive([GOOD], suffix=b"x"), "after its end")

    def test_two_archives_in_one_file_are_refused(self) -> None:
        self.refused(errors.InvalidPackage, archive([GOOD]) + archive([GOOD]))

    def test_an_archive_in_the_comment_of_another_is_refused(self) -> None:
        inner = archive([GOOD])
        self.refused(errors.InvalidPackage, archive([GOOD], comment=inner))

    def test_a_part_of_a_split_archive_is_refused(self) -> None:
        self.refused(errors.InvalidPackage, archive([GOOD], disk=1), "several parts")
        self.refused(errors.InvalidPackage, archive([Member(b"a", disk=1)]), "several parts")

    def test_a_directory_that_is_not_where_the_end_says_is_refused(self) -> None:
        for shift in (-4, 4, 2**31):
            self.refused(errors.InvalidPackage, archive([GOOD], shift=shift))

    def test_a_wrong_number_of_members_is_refused(self) -> None:
        for count in (1, 3):
            self.refused(errors.InvalidPackage, archive([GOOD, Member(b"b")], count=count))

    def test_two_end_records_that_disagree_are_refused(self) -> None:
        data = bytearray(archive([GOOD], zip64={}))
        data[-14:-10] = struct.pack("<HH", 7, 7)
        self.refused(errors.InvalidPackage, bytes(data), "disagree")

    def test_a_lying_zip64_end_record_is_refused(self) -> None:
        for lie in ({"length": 60}, {"at": 0}, {"count": 2}, {"disk": 1}, {"start": 3}, {"size": 2**60}):
            self.refused(errors.InvalidPackage, archive([GOOD], zip64=lie))

    def test_damaged_extra_fields_are_refused(self) -> None:
        for extra in (b"\1\0\xff\0", b"\1\0\0\0" * 2, b"ux\xff\xff1"):
            self.refused(errors.InvalidPackage, archive([Member(b"a", extra=extra)]), "extra fields")

    def test_a_zip64_field_without_the_value_it_promises_is_refused(self) -> None:
        self.refused(
            errors.InvalidPackage,
            archive([Member(b"a", size=0xFFFFFFFF, extra=b"\1\0\4\0abcd")]),
            "extra fields",
        )


class NameTests(Refusal):
    def test_names_that_leave_the_package_are_refused(self) -> None:
        for name in (b"../main.py", b"a/../../main.py", b"..", b"a/..", b"../", b"a/../b"):
            self.refused(errors.PackageMemberName, archive([Member(name)]), "..")

    def test_absolute_names_are_refused(self) -> None:
        for name in (b"/etc/passwd", b"//host/share", b"C:/windows", b"c:main.py", b"/"):
            self.refused(errors.PackageMemberName, archive([Member(name)]), "absolute")

    def test_backslashes_are_refused(self) -> None:
        for name in (b"a\\main.py", b"..\\main.py", b"\\\\host\\share"):
            self.refused(errors.PackageMemberName, archive([Member(name)]), "backslash")

    def test_a_nul_in_a_name_is_refused_though_zipfile_cuts_it(self) -> None:
        data = archive([Member(b"main.py\0/../../x")])
        self.assertEqual(["main.py"], zipfile.ZipFile(io.BytesIO(data)).namelist())
        self.refused(errors.PackageMemberName, data, "NUL")

    def test_control_characters_are_refused_and_shown_escaped(self) -> None:
        for name in (b"a\nb", b"\x1b[31mred", b"\x7f"):
            error = self.assertRaises(errors.PackageMemberName, check, archive([Member(name)]))
            self.assertTrue(error.message.isprintable(), error.message)

    def test_empty_and_dot_parts_are_refused(self) -> None:
        for name in (b"", b"a//b", b"./a", b"a/./b", b".", b"./"):
            self.refused(errors.PackageMemberName, archive([Member(name)]))

    def test_a_part_longer_than_file_systems_take_is_refused(self) -> None:
        check(archive([Member(b"a" * 255)]))
        self.refused(errors.PackageMemberName, archive([Member(b"a" * 256)]), "255")
        self.refused(errors.PackageMemberName, archive([Member("ä".encode() * 128, flags=0x800)]), "255")

    def test_a_path_longer_than_the_kernel_takes_is_refused(self) -> None:
        deep = packages.PackageLimits(64 * MIB, 5000, 5000, MIB, 200)
        check(archive([Member(b"/".join([b"a" * 19] * 192))]), deep)
        self.refused(
            errors.PackageMemberName, archive([Member(b"/".join([b"a" * 19] * 193))]), "3840", limits=deep
        )

    def test_a_name_that_is_not_the_utf8_it_claims_is_refused(self) -> None:
        self.refused(errors.PackageMemberName, archive([Member(b"\xff\xfe", flags=0x800)]), "UTF-8")

    def test_a_second_name_that_is_another_path_is_refused(self) -> None:
        for name, path in ((b"a.py", b"../b.py"), (b"a.py", b"b.py"), (b"\xe4.py", b"\xc3\xa4/x.py")):
            field = b"\1" + struct.pack("<L", zlib.crc32(name)) + path
            extra = struct.pack("<HH", 0x7075, len(field)) + field
            self.refused(errors.PackageLies, archive([Member(name, extra=extra)]), "second name")

    def test_a_second_name_is_checked_like_any_other(self) -> None:
        name, path = b"\xe4/\xe4/x", b"\xc3\xa4/../x"
        field = b"\1" + struct.pack("<L", zlib.crc32(name)) + path
        extra = struct.pack("<HH", 0x7075, len(field)) + field
        self.refused(errors.PackageMemberName, archive([Member(name, extra=extra)]), "..")


class TypeTests(Refusal):
    def test_links_devices_pipes_and_sockets_are_refused(self) -> None:
        for mode, word in (
            (0o120777, "symbolic link"),
            (0o020666, "device"),
            (0o060666, "device"),
            (0o010666, "named pipe"),
            (0o140666, "socket"),
            (0o150666, "no known type"),
        ):
            self.refused(
                errors.PackageMemberType, archive([Member(b"x", b"/etc/passwd", mode=mode)]), word, "'x'"
            )

    def test_a_type_that_the_name_denies_is_refused(self) -> None:
        self.refused(errors.PackageMemberType, archive([Member(b"x", mode=DIRECTORY)]), "name denies")

    def test_a_directory_that_its_archiver_calls_a_file_is_accepted(self) -> None:
        for mode in (FILE, 0o177755):
            check(archive([Member(b"x/", mode=mode)]))
        self.refused(errors.PackageMemberType, archive([Member(b"x/", mode=0o120777)]), "symbolic link")

    def test_a_directory_with_content_is_refused(self) -> None:
        self.refused(errors.PackageMemberType, archive([Member(b"x/", b"content", mode=DIRECTORY)]))

    def test_members_without_a_unix_mode_are_accepted(self) -> None:
        check(archive([Member(b"x/", mode=0), Member(b"x/main.py", b"x", mode=0)]))


class DuplicateTests(Refusal):
    def test_equal_names_are_refused(self) -> None:
        self.refused(errors.PackageDuplicateMember, archive([GOOD, GOOD]), "main.py")
        self.refused(errors.PackageDuplicateMember, archive([Member(b"a/", mode=DIRECTORY)] * 2))

    def test_names_that_differ_in_case_alone_are_refused(self) -> None:
        for one, other in (("main.py", "MAIN.py"), ("straße", "STRASSE"), ("a/x", "A/x"), ("a/x", "A/y")):
            members = [Member(name.encode(), flags=0x800) for name in (one, other)]
            self.refused(errors.PackageDuplicateMember, archive(members), "case")

    def test_names_that_differ_in_the_encoding_of_accents_alone_are_refused(self) -> None:
        members = [Member("caf\u00e9".encode(), flags=0x800), Member("cafe\u0301".encode(), flags=0x800)]
        self.refused(errors.PackageDuplicateMember, archive(members), "accents")

    def test_a_file_that_is_also_a_directory_is_refused_in_either_order(self) -> None:
        for names in ((b"a", b"a/b"), (b"a/b", b"a"), (b"a/b/c", b"a"), (b"A", b"a/b")):
            self.refused(errors.PackageDuplicateMember, archive([Member(name) for name in names]), "both")

    def test_a_directory_may_be_implied_before_and_after_its_member(self) -> None:
        check(archive([Member(b"a/b"), Member(b"a/", mode=DIRECTORY), Member(b"a/c")]))


class UnreadableTests(Refusal):
    def test_encrypted_members_are_refused(self) -> None:
        for flags in (0x0001, 0x0041, 0x2000):
            self.refused(errors.PackageEncrypted, archive([Member(b"a", b"x", flags=flags)]), "'a'")
        self.refused(errors.PackageEncrypted, archive([Member(b"a", b"x", method=99)]), "'a'")

    def test_methods_that_runtimes_cannot_read_are_refused(self) -> None:
        for method in (1, 6, 9, 12, 14, 93, 95, 98):
            self.refused(errors.PackageCompression, archive([Member(b"a", b"x", method=method)]), str(method))
        self.refused(errors.PackageCompression, archive([Member(b"a", b"x", flags=0x20)]))
        self.refused(errors.PackageCompression, archive([Member(b"a", b"x", version=64)]))


class LimitTests(Refusal):
    def test_too_many_members_are_refused(self) -> None:
        check(archive([Member(b"%d" % n) for n in range(50)]))
        self.refused(errors.PackageTooManyMembers, archive([Member(b"%d" % n) for n in range(51)]), "50")

    def test_directories_that_paths_imply_count_as_members(self) -> None:
        self.refused(errors.PackageTooManyMembers, archive([Member(b"%d/%d/x" % (n, n)) for n in range(17)]))

    def test_nesting_too_deep_is_refused(self) -> None:
        check(archive([Member(b"a/b/c/d/x"), Member(b"b/c/d/e/", mode=DIRECTORY)]))
        self.refused(errors.PackageTooDeep, archive([Member(b"a/b/c/d/e/x")]), "limit is 4")
        self.refused(errors.PackageTooDeep, archive([Member(b"a/b/c/d/e/", mode=DIRECTORY)]))

    def test_a_total_over_the_limit_is_refused(self) -> None:
        limits = packages.PackageLimits(MIB, 50, 4, 100, 200)
        check(archive([Member(b"a", b"x" * 50), Member(b"b", b"x" * 50)]), limits)
        data = archive([Member(b"a", b"x" * 50), Member(b"b", b"x" * 51)])
        self.refused(errors.PackageExpandsTooLarge, data, "'b'", "100", limits=limits)

    def test_a_high_ratio_is_refused_from_one_mebibyte_on(self) -> None:
        check(archive([Member(b"a", bytes(MIB), DEFLATED)]))
        self.refused(errors.PackageRatio, archive([Member(b"a", bytes(2 * MIB), DEFLATED)]), "'a'", "200")


class BombTests(Refusal):
    def test_members_that_share_one_body_are_refused(self) -> None:
        kernel = Member(b"0", bytes(MIB), DEFLATED)
        shared = [Member(b"%d" % n, bytes(MIB), DEFLATED, written=False, offset=0) for n in range(1, 9)]
        self.refused(errors.PackageOverlap, archive([kernel, *shared]))
        twin = Member(b"1", b"x" * 9, written=False, offset=0)
        self.refused(errors.PackageOverlap, archive([Member(b"0", b"x" * 9), twin]))

    def test_members_that_quote_each_others_headers_are_refused(self) -> None:
        # Each member's data begin with a stored block that holds the next member's header.
        last = Member(b"1", b"a" * 1000, DEFLATED)
        quoted = last.header()
        block = struct.pack("<BHH", 0, len(quoted), len(quoted) ^ 0xFFFF) + quoted
        first = Member(b"0", quoted + last.data, DEFLATED, packed=block + last.body())
        inner = Member(b"1", last.data, DEFLATED, written=False, offset=len(first.header()) + 5)
        self.refused(errors.PackageOverlap, archive([first, inner]), "'0'")

    def test_a_member_that_reaches_into_the_directory_is_refused(self) -> None:
        self.refused(errors.PackageOverlap, archive([Member(b"a", b"xy", packed_size=3, size=3)]))

    def test_a_member_outside_of_the_file_is_refused(self) -> None:
        for offset in (2**31, 0xFFFFFFFE):
            self.refused(
                errors.PackageOverlap, archive([GOOD, Member(b"a", b"xy", written=False, offset=offset)])
            )

    def test_a_member_that_unpacks_to_more_than_it_declares_is_refused(self) -> None:
        body = deflate(bytes(16 * MIB))
        data = archive([Member(b"a", bytes(100), DEFLATED, packed=body)])
        self.refused(errors.PackageLies, data, "more than", "100")

    def test_a_member_that_unpacks_to_less_than_it_declares_is_refused(self) -> None:
        self.refused(errors.PackageLies, archive([Member(b"a", b"x" * 9, DEFLATED, size=10)]))
        self.refused(errors.PackageLies, archive([Member(b"a", b"x" * 9, size=10)]))

    def test_a_gigabyte_bomb_takes_neither_memory_nor_time(self) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = b"".join([packer.compress(bytes(16 * MIB)) for _ in range(64)] + [packer.flush()])
        honest = Member(b"bomb", packed=body, method=DEFLATED, size=1024 * MIB, crc=1)
        lying = Member(b"bomb", packed=body, method=DEFLATED, size=30 * MIB, crc=1)
        generous = packages.PackageLimits(64 * MIB, 50, 4, 4096 * MIB, 2000)
        for data, limits in (
            (archive([honest]), LIMITS),
            (archive([lying]), packages.PackageLimits(64 * MIB, 50, 4, 32 * MIB, 1e9)),
            (archive([honest]), generous),
        ):
            began = time.process_time()
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            self.assertRaises(errors.InvalidPackage, check, data, limits)
            peak = tracemalloc.get_traced_memory()[1] - len(data)
            self.assertLess(peak, 4 * MIB)
            self.assertLess(time.process_time() - began, 20)

    def test_a_directory_of_a_million_members_takes_no_memory(self) -> None:
        record = Member(b"a").record(0)
        directory = record * 1_000_000
        end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, len(directory), 0)
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
        ones = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        data = io.BytesIO(directory + end + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *ones))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        size = len(data.getvalue())
        self.assertRaises(errors.PackageTooManyMembers, packages.check, data, size, LIMITS)
        self.assertLess(tracemalloc.get_traced_memory()[1], MIB)

    def test_long_names_take_no_memory(self) -> None:
        name = b"/".join([b"%04d" + b"n" * 200] * 18)
        members = [Member(name % ((n,) * 18), b"") for n in range(1000)]
        limits = packages.PackageLimits(64 * MIB, 20000, 32, MIB, 200)
        data = io.BytesIO(archive(members))
        size = len(data.getvalue())
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        packages.check(data, size, limits)
        self.assertLess(tracemalloc.get_traced_memory()[1], 12 * MIB)


class LieTests(Refusal):
    def test_a_wrong_checksum_is_refused(self) -> None:
        self.refused(errors.PackageLies, archive([Member(b"a", b"xy", crc=1)]), "checksum", "'a'")

    def test_damaged_data_are_refused(self) -> None:
        self.refused(errors.PackageLies, archive([Member(b"a", b"x" * 99, DEFLATED, packed=b"\xff" * 20)]))

    def test_data_that_end_early_or_late_are_refused(self) -> None:
        body = deflate(b"x" * 99)
        for packed in (body[:-1], body + b"\0", body + bytes(600_000)):
            self.refused(errors.PackageLies, archive([Member(b"a", b"x" * 99, DEFLATED, packed=packed)]))

    def test_a_header_that_disagrees_with_the_directory_is_refused(self) -> None:
        for lie in (
            {"name": b"b"},
            {"method": DEFLATED},
            {"size": 3},
            {"packed_size": 1},
            {"crc": 0},
            {"flags": 0x800},
            {"flags": 8, "crc": 0, "size": 0, "packed_size": 0},
        ):
            self.refused(errors.PackageLies, archive([Member(b"a", b"xy", local=lie)]), "disagrees")

    def test_a_member_that_is_not_where_the_directory_says_is_refused(self) -> None:
        data = bytearray(archive([GOOD]))
        data[0:4] = b"PK\3\5"
        self.refused(errors.PackageLies, bytes(data), "not where")

    def test_bytes_that_belong_to_no_member_are_refused(self) -> None:
        hidden = Member(b"hidden.py", b"import os")
        gap = hidden.header() + hidden.data
        self.refused(errors.PackageLies, archive([GOOD], gap=gap), "belong to no member")
        self.refused(errors.PackageLies, archive([Member(b"a", b"xy", descriptor=b"x"), GOOD]), "'a'")

    def test_a_descriptor_that_disagrees_with_the_directory_is_refused(self) -> None:
        local = {"crc": 0, "size": 0, "packed_size": 0}
        for descriptor in (b"PK\7\x08" + struct.pack("<3L", 1, 2, 2), bytes(16), b"PK\7\x08"):
            member = Member(b"a", b"xy", flags=8, local=local, descriptor=descriptor)
            self.refused(errors.PackageLies, archive([member]), "belong to no member")


class AcceptanceTests(testtools.TestCase):
    def test_every_way_to_write_a_descriptor_is_accepted(self) -> None:
        local = {"crc": 0, "size": 0, "packed_size": 0}
        crc = zlib.crc32(b"xy")
        for body in (struct.pack("<3L", crc, 2, 2), struct.pack("<LQQ", crc, 2, 2)):
            for descriptor in (body, b"PK\7\x08" + body):
                check(archive([Member(b"a", b"xy", flags=8, local=local, descriptor=descriptor), GOOD]))

    def test_a_zip64_end_record_is_accepted(self) -> None:
        check(archive([GOOD], zip64={}))

    def test_a_comment_is_accepted(self) -> None:
        check(archive([GOOD], comment=b"made by hand" * 1000))

    def test_padding_in_extra_fields_is_accepted(self) -> None:
        check(archive([Member(b"a", b"x", extra=b"\0\0\0")]))

    def test_a_stored_archive_inside_is_accepted(self) -> None:
        check(archive([GOOD, Member(b"inner.zip", archive([GOOD]))]))

    def test_output_that_fills_the_inflaters_last_chunk_is_not_lost(self) -> None:
        for size in (256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 512 * 1024):
            check(archive([Member(b"a", bytes(size), DEFLATED)]))


NAMES = st.lists(
    st.text(st.characters(categories=["L", "N"], max_codepoint=0x2FFF), min_size=1, max_size=8).filter(
        lambda part: part.isprintable()
    ),
    min_size=1,
    max_size=4,
).map("/".join)


class _Pipe(io.RawIOBase):
    """Makes zipfile write data descriptors: it can be neither sought nor told."""

    def __init__(self, target: io.BytesIO) -> None:
        self.target = target

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self.target.write(data)  # type: ignore[call-overload, no-any-return]


@st.composite
def archives(draw: st.DrawFn) -> tuple[bytes, dict[str, bytes]]:
    """What zipfile writes, and the content."""
    names = draw(
        st.lists(NAMES, min_size=1, max_size=6, unique_by=lambda name: name.casefold().split("/")[0])
    )
    content = {name: draw(st.binary(max_size=300)) * draw(st.integers(1, 40)) for name in names}
    output = io.BytesIO()
    target = _Pipe(output) if draw(st.booleans()) else output
    with zipfile.ZipFile(target, "w") as file:  # type: ignore[call-overload]
        for name, data in content.items():
            method = draw(st.sampled_from([STORED, DEFLATED]))
            with file.open(_info(name, method), "w", force_zip64=draw(st.booleans())) as member:
                member.write(data)
        file.comment = draw(st.binary(max_size=20)).replace(b"PK", b"")
    return output.getvalue(), content


def _info(name: str, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    return info


class PropertyTests(testtools.TestCase):
    @hypothesis.settings(max_examples=200, deadline=None)
    @hypothesis.given(archives())
    def test_whatever_zipfile_writes_is_accepted(self, made: tuple[bytes, dict[str, bytes]]) -> None:
        check(made[0])

    @hypothesis.settings(max_examples=400, deadline=None)
    @hypothesis.given(archives(), st.data())
    def test_mutated_archives_raise_nothing_but_invalid_package(
        self, made: tuple[bytes, dict[str, bytes]], data: st.DataObject
    ) -> None:
        mutated = bytearray(made[0])
        for _ in range(data.draw(st.integers(1, 4))):
            position = data.draw(st.integers(0, len(mutated) - 1))
            mutated[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        try:
            check(bytes(mutated))
        except errors.InvalidPackage as error:
            self.assertIn(error.code, CODES)

    @hypothesis.settings(max_examples=200, deadline=None)
    @hypothesis.given(st.binary(max_size=2000))
    def test_arbitrary_bytes_raise_nothing_but_invalid_package(self, data: bytes) -> None:
        self.assertRaises(errors.InvalidPackage, check, data + data[:22])


class DocumentTests(testtools.TestCase):
    def test_every_code_is_in_the_users_page(self) -> None:
        page = (pathlib.Path(__file__).parents[2] / "docs" / "user" / "packages.rst").read_text()
        for code in CODES:
            self.assertIn(f"``{code}``", page)


CODES = {kind.code for kind in (errors.InvalidPackage, *errors.InvalidPackage.__subclasses__())}
