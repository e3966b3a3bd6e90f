"""The grammars of the storage driver registry: names of images, challenges, manifests and platforms."""

from __future__ import annotations

import json
from typing import Any

import httpx
import testtools
from hypothesis import given, settings
from hypothesis import strategies as st

from funcplat import errors
from funcplat.registryauth import Credentials
from funcplat.storage.registry import challenges, failures, manifests, names
from funcplat.storage.registry.challenges import Challenge
from funcplat.storage.registry.manifests import Index, Manifest, Platform
from funcplat.storage.registry.transport import Call, matches

DIGEST = "sha256:" + "0123456789abcdef" * 4
OTHER = "sha256:" + "f" * 64


class NameTests(testtools.TestCase):
    def test_short_names_mean_the_default_host_and_tag(self) -> None:
        for short, long in {
            "python": "docker.io/library/python:latest",
            "python:3.12-slim": "docker.io/library/python:3.12-slim",
            "team/name": "docker.io/team/name:latest",
            "docker.io/python": "docker.io/library/python:latest",
            "index.docker.io/python": "docker.io/library/python:latest",
            f"python@{DIGEST}": f"docker.io/library/python@{DIGEST}",
        }.items():
            self.assertEqual(long, str(names.parse(short)))

    def test_the_first_part_is_a_host_where_it_looks_like_one(self) -> None:
        for text, host, repository in (
            ("localhost/a", "localhost", "a"),
            ("localhost:5000/a/b", "localhost:5000", "a/b"),
            ("ghcr.io/a/b", "ghcr.io", "a/b"),
            ("10.0.0.1:5000/a", "10.0.0.1:5000", "a"),
            ("[::1]:5000/a", "[::1]:5000", "a"),
            ("Registry/a", "Registry", "a"),
            ("registry/a", "docker.io", "registry/a"),
        ):
            found = names.parse(text)
            self.assertEqual((host, repository), (found.host, found.repository), text)

    def test_a_digest_counts_before_a_tag(self) -> None:
        found = names.parse(f"example.org/a:1@{DIGEST}")
        self.assertEqual(("1", DIGEST, DIGEST), (found.tag, found.digest, found.reference))
        self.assertEqual(f"example.org/a:1@{DIGEST}", str(found))
        self.assertEqual("1", names.parse("example.org/a:1").reference)
        self.assertEqual("latest", names.parse("example.org/a").reference)

    def test_what_separates_parts_may_be_repeated_as_the_grammar_says(self) -> None:
        for good in ("a.b", "a_b", "a__b", "a-b", "a---b", "a0/b1"):
            self.assertEqual(good, names.parse(f"example.org/{good}").repository)
        for bad in ("a..b", "a___b", "-a", "a-", "a/", "/a", "a//b", "A", "a b", "ä", "a%2e"):
            self.assertRaises(failures.InvalidReference, names.parse, f"example.org/{bad}")

    def test_what_is_no_name_says_which_part_is_wrong(self) -> None:
        for text, words in {
            "": "repository",
            "../../etc": "host",
            "a:b:c": "repository|tag|host",
            "a:": "tag",
            "a:-x": "tag",
            "a:" + "x" * 129: "tag",
            "a@sha256:1234": "hex digits",
            "a@sha512:" + "0" * 128: "sha256",
            "a@" + DIGEST.upper(): "sha256",
            "a@": "hex digits",
            "example.org:0/a": "port",
            "example.org:99999/a": "port",
            "exa_mple.org/a": "host",
            "999.1.1.1/a": "host",
            "[::::]/a": "host",
            "[127.0.0.1/a": "host",
            "x" * 64 + ".org/a": "host",
            "user:password@example.org/a": "hex digits",
            "https://example.org/a": "repository|host",
            "example.org/" + "a" * 255: "255",
            "example.org/a\n": "repository",
        }.items():
            raised = self.assertRaises(failures.InvalidReference, names.parse, text)
            self.assertRegex(raised.message, words)

    @settings(deadline=None)
    @given(st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9:/@._\[\]-]{0,60}", fullmatch=True))
    def test_whatever_is_a_name_means_the_same_when_it_is_written_out(self, text: str) -> None:
        try:
            found = names.parse(text)
        except failures.InvalidReference:
            return
        self.assertEqual(found, names.parse(str(found)))
        self.assertTrue(httpx.URL(f"https://{found.host}/v2/{found.repository}/").host)


class ChallengeTests(testtools.TestCase):
    def test_a_bearer_challenge_has_its_parameters(self) -> None:
        header = 'Bearer realm="https://auth.example.org/token",service="registry",scope="repository:a/b:pull,push"'
        expected = {
            "realm": "https://auth.example.org/token",
            "service": "registry",
            "scope": "repository:a/b:pull,push",
        }
        self.assertEqual([Challenge("bearer", expected)], challenges.parse([header]))

    def test_several_challenges_may_stand_in_one_header_or_several(self) -> None:
        both = [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y", "service": "z"})]
        one = 'Basic realm="x", Bearer realm="y", service=z'
        self.assertEqual(both, challenges.parse([one]))
        self.assertEqual(both, challenges.parse(['BASIC Realm="x"', 'bearer realm = "y" ,, service = z']))

    def test_quotes_may_hold_anything(self) -> None:
        self.assertEqual(
            [Challenge("basic", {"realm": 'a "b", Bearer realm=c\\'})],
            challenges.parse([r'Basic realm="a \"b\", Bearer realm=c\\"']),
        )

    def test_a_scheme_may_have_one_opaque_value_or_nothing(self) -> None:
        found = challenges.parse(['Negotiate abc/def==, Basic realm="x"', "NTLM", "Basic"])
        self.assertEqual(["negotiate", "basic", "ntlm", "basic"], [each.scheme for each in found])
        self.assertEqual({"realm": "x"}, found[1].parameters)

    def test_nonsense_is_passed_over(self) -> None:
        self.assertEqual([], challenges.parse([]))
        self.assertEqual([], challenges.parse(["", " , ", '"', '="']))

    @settings(deadline=None)
    @given(st.text(max_size=200))
    def test_any_header_can_be_parsed(self, header: str) -> None:
        challenges.parse([header])


def descriptor(**more: Any) -> dict[str, Any]:
    return {"mediaType": manifests.OCI_MANIFEST, "digest": DIGEST, "size": 7, **more}


def index(*platforms: dict[str, str] | None, kind: str = manifests.OCI_INDEX) -> Index:
    entries = [
        descriptor(digest=f"sha256:{number:064x}", platform=platform)
        for number, platform in enumerate(platforms)
    ]
    parsed = manifests.parse(
        "application/json", json.dumps({"mediaType": kind, "manifests": entries}).encode()
    )
    assert isinstance(parsed, Index)
    return parsed


def runs_on(os: str, architecture: str, variant: str = "") -> dict[str, str]:
    return {"os": os, "architecture": architecture, "variant": variant}


class IndexTests(testtools.TestCase):
    def chosen(self, wanted: str, found: Index) -> int:
        return int(found.choose(Platform.parse(wanted), "name").digest[7:], 16)

    def test_the_entry_of_the_platform_is_chosen(self) -> None:
        for kind in (manifests.OCI_INDEX, manifests.DOCKER_INDEX):
            found = index(runs_on("linux", "arm64", "v8"), None, runs_on("linux", "amd64"), kind=kind)
            self.assertEqual(2, self.chosen("linux/amd64", found))
            self.assertEqual(0, self.chosen("linux/arm64", found))

    def test_the_nearest_variant_that_runs_is_chosen(self) -> None:
        arm = index(
            runs_on("linux", "arm", "v5"), runs_on("linux", "arm", "v7"), runs_on("linux", "arm", "v6")
        )
        self.assertEqual(1, self.chosen("linux/arm/v7", arm))
        self.assertEqual(2, self.chosen("linux/arm/v6", arm))
        amd = index(runs_on("linux", "amd64", "v3"), runs_on("linux", "amd64"))
        self.assertEqual(1, self.chosen("linux/amd64", amd))
        self.assertEqual(0, self.chosen("linux/amd64/v3", amd))

    def test_what_is_there_is_said_where_nothing_fits(self) -> None:
        found = index(
            runs_on("windows", "amd64"), runs_on("linux", "arm", "v7"), runs_on("unknown", "unknown"), None
        )
        raised = self.assertRaises(failures.PlatformMissing, self.chosen, "linux/amd64", found)
        self.assertIn("linux/arm/v7, windows/amd64", raised.message)
        self.assertNotIn("unknown", raised.message)
        raised = self.assertRaises(failures.PlatformMissing, self.chosen, "linux/arm/v6", found)
        raised = self.assertRaises(failures.PlatformMissing, self.chosen, "linux/amd64", index())
        self.assertIn("none", raised.message)

    def test_platforms_are_written_as_docker_writes_them(self) -> None:
        for text in ("linux/amd64", "linux/arm/v7"):
            self.assertEqual(text, str(Platform.parse(text)))
        for wrong in ("", "linux", "linux/", "/amd64", "linux/arm/v7/x"):
            self.assertRaises(ValueError, Platform.parse, wrong)
        self.assertEqual("linux", Platform.here().os)


class ManifestTests(testtools.TestCase):
    def parse(self, value: Any, kind: str = manifests.OCI_MANIFEST) -> Manifest | Index:
        return manifests.parse(kind, json.dumps(value).encode())

    def test_images_of_both_kinds_have_a_size_and_are_images(self) -> None:
        for kind, config in (
            (manifests.OCI_MANIFEST, manifests.OCI_CONFIG),
            (manifests.DOCKER_MANIFEST, manifests.DOCKER_CONFIG),
        ):
            value = {"config": descriptor(mediaType=config), "layers": [descriptor(), descriptor(size=5)]}
            found = self.parse(value, f"{kind}; charset=utf-8")
            assert isinstance(found, Manifest)
            self.assertEqual((True, 19), (found.is_image, found.size))

    def test_an_artifact_is_what_it_says_or_what_its_config_is(self) -> None:
        config = descriptor(mediaType="application/x-config")
        for value, kind in (
            ({"config": config, "layers": [], "artifactType": "application/x-type"}, "application/x-type"),
            ({"config": config, "layers": []}, "application/x-config"),
        ):
            found = self.parse(value)
            assert isinstance(found, Manifest)
            self.assertEqual((False, kind), (found.is_image, found.artifact_type))

    def test_the_document_says_what_it_is_before_the_server_does(self) -> None:
        value = {"mediaType": manifests.DOCKER_INDEX, "manifests": []}
        self.assertIsInstance(self.parse(value, "text/plain"), Index)

    def test_other_kinds_are_refused_by_name(self) -> None:
        for kind in ("application/vnd.docker.distribution.manifest.v1+prettyjws", "text/html", ""):
            raised = self.assertRaises(failures.ReferenceUnsupported, self.parse, {}, kind)
            self.assertIn(repr(kind), raised.message)

    def test_an_index_that_is_a_manifest_too_is_refused(self) -> None:
        value = {"manifests": [], "config": descriptor(), "layers": []}
        for kind in (manifests.OCI_MANIFEST, manifests.OCI_INDEX):
            self.assertRaises(errors.DriverError, self.parse, value, kind)

    def test_broken_documents_are_the_drivers_error(self) -> None:
        good = {"config": descriptor(), "layers": [descriptor()]}
        self.parse(good)
        for broken in (
            [],
            None,
            "x",
            {"config": descriptor()},
            {"layers": []},
            {**good, "layers": {}} | {"layers": 7},
            {**good, "layers": [7]},
            {**good, "config": []},
            {**good, "layers": [descriptor(digest="sha256:../../x")]},
            {**good, "layers": [descriptor(digest=None)]},
            {**good, "layers": [descriptor(size=-1)]},
            {**good, "layers": [descriptor(size="7")]},
            {**good, "layers": [descriptor(size=True)]},
        ):
            self.assertRaises(errors.DriverError, self.parse, broken)
        for body in (b"", b"\xff", b"[" * 100_000):
            self.assertRaises(errors.DriverError, manifests.parse, manifests.OCI_MANIFEST, body)

    def test_a_config_says_what_the_image_runs_on(self) -> None:
        config = json.dumps(runs_on("linux", "arm64", "v8")).encode()
        self.assertEqual(Platform("linux", "arm64", "v8"), manifests.platform_of(config))
        self.assertIsNone(manifests.platform_of(b"{}"))
        self.assertRaises(errors.DriverError, manifests.platform_of, b"{")


class CredentialsTests(testtools.TestCase):
    def test_fields_are_those_of_docker(self) -> None:
        self.assertEqual(
            Credentials("ann", "secret"), Credentials.of({"username": "ann", "password": "secret"})
        )
        self.assertEqual(Credentials(identity_token="t"), Credentials.of({"identitytoken": "t"}))
        self.assertEqual(Credentials(registry_token="t"), Credentials.of({"registrytoken": "t"}))
        self.assertEqual(Credentials(), Credentials.of({"email": "x", "username": None}))

    def test_helpers_may_keep_a_token_as_a_password(self) -> None:
        self.assertEqual(
            Credentials(identity_token="t"), Credentials.of({"username": "<token>", "password": "t"})
        )

    def test_secrets_do_not_show(self) -> None:
        shown = repr(Credentials("ann", "secret", "identity", "registry"))
        for secret in ("secret", "identity'", "registry'"):
            self.assertNotIn(secret, shown)


class TransportTests(testtools.TestCase):
    def test_hosts_without_tls_are_named_by_host_port_address_or_network(self) -> None:
        url = httpx.URL("https://127.0.0.1:5000/v2/")
        for pattern in ("127.0.0.1", "127.0.0.1:5000", "127.0.0.0/8"):
            self.assertTrue(matches(url, pattern), pattern)
        for pattern in ("127.0.0.1:5001", "10.0.0.0/8", "localhost", "", "::1", "0.0.0.0"):
            self.assertFalse(matches(url, pattern), pattern)
        self.assertTrue(matches(httpx.URL("https://[::1]:5000/"), "::1"))
        self.assertTrue(matches(httpx.URL("https://Registry.Lab/"), "registry.lab"))
        self.assertFalse(matches(httpx.URL("https://localhost.example.org/"), "localhost"))

    def test_authorization_stays_with_the_origin_it_was_for(self) -> None:
        call = Call("GET", httpx.URL("https://a.example/v2/"), {"Authorization": "x", "Accept": "y"})
        for target, kept in {
            "https://a.example/elsewhere": True,
            "https://a.example:443/elsewhere": True,
            "https://a.example:444/": False,
            "http://a.example/": False,
            "https://b.example/": False,
            "https://a.example.org/": False,
        }.items():
            headers = call.redirected(httpx.URL(target)).headers
            self.assertEqual((kept, True), ("Authorization" in headers, "Accept" in headers), target)
