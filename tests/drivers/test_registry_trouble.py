"""What the storage driver registry makes of registries that fail, lie, redirect or refuse: hop by hop."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import socket
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import testtools

from funcplat import errors
from funcplat.storage.base import Reference
from funcplat.storage.registry import failures, manifests
from funcplat.storage.registry.driver import RegistryDriver
from funcplat.testing.storage_case import StorageCase
from tests.drivers import registries
from tests.drivers.registries import Reply, Seen

DATA = b"code" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
ARTIFACT = "application/vnd.example.code"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def document(code: str, message: str = "") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def artifact(data: bytes) -> bytes:
    def described(media_type: str, content: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": manifests.OCI_MANIFEST,
            "config": described(ARTIFACT, b"{}"),
            "layers": [described(ARTIFACT, data)],
        }
    ).encode()


MANIFEST = artifact(DATA)


class Case(StorageCase, testtools.TestCase):
    """A driver, and a registry that follows a script: (method, path below the repository) -> reply."""

    driver_class = RegistryDriver

    def make_options(self) -> Mapping[str, Any]:
        self.script: dict[tuple[str, str], Reply | Callable[[Seen], Reply]] = {
            ("GET", "manifests/1"): Reply(headers={"Content-Type": manifests.OCI_MANIFEST}, body=MANIFEST),
            ("GET", f"manifests/{digest_of(MANIFEST)}"): Reply(
                headers={"Content-Type": manifests.OCI_MANIFEST}, body=MANIFEST
            ),
            ("GET", f"blobs/{digest_of(DATA)}"): Reply(body=DATA),
        }
        self.server = self.useFixture(registries.Server(self.answer))
        self.image = {"image": f"{self.server.host}/a/b:1"}
        return {}

    def answer(self, seen: Seen) -> Reply:
        reply = self.script.get((seen.method, seen.path.removeprefix("/v2/a/b/")), Reply(404))
        return reply if isinstance(reply, Reply) else reply(seen)

    def resolve(self, deadline: float = 20.0, **credentials: str) -> Reference:
        return self.driver.resolve(self.image, credentials, deadline=deadline)

    def read(self, **credentials: str) -> bytes:
        pinned = Reference(self.image, digest_of(MANIFEST), None)
        with self.driver.open_reference(pinned, credentials, deadline=20.0) as chunks:
            return b"".join(chunks)

    def refused(self, kind: type[errors.FuncplatError], code: str, words: str, **more: Any) -> None:
        """A resolve fails as that kind, with a code, and a sentence that says what to do."""
        raised = self.assertRaises(kind, self.resolve, **more)
        self.assertEqual(code, raised.code)
        self.assertRegex(raised.message, words)

    def moved(self, host: str) -> None:
        self.image = {"image": f"{host}/a/b:1"}


class HopTests(Case):
    def test_a_right_registry_is_read(self) -> None:
        self.assertEqual(Reference(self.image, digest_of(MANIFEST), len(DATA)), self.resolve())
        self.assertEqual(DATA, self.read())

    def test_connections_are_kept(self) -> None:
        self.resolve()
        self.script["GET", "manifests/1"] = Reply(404, body=document("MANIFEST_UNKNOWN"))
        self.assertRaises(failures.ReferenceMissing, self.resolve)
        self.script["GET", "manifests/1"] = Reply(
            307, {"Location": f"/v2/a/b/manifests/{digest_of(MANIFEST)}"}, b"there"
        )
        self.resolve()
        self.assertEqual((4, 1), (len(self.server.seen), self.server.connections))

    def test_a_name_without_an_address_is_the_users_mistake(self) -> None:
        self.moved("no-such-registry.invalid")
        self.refused(errors.InvalidRequest, "reference_host_unknown", "no-such-registry.invalid.*spelled")

    def test_a_port_where_nobody_listens_may_be_tried_again(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.moved(f"127.0.0.1:{bound.getsockname()[1]}")
            self.refused(errors.DriverUnavailable, "registry_refused", "nothing listens.*start the registry")

    def test_a_server_that_says_nothing_is_given_up_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            self.moved(f"127.0.0.1:{silent.getsockname()[1]}")
            began = time.monotonic()
            self.refused(errors.DriverTimeout, "driver_timeout", "did not answer in time", deadline=0.3)
            self.assertLess(time.monotonic() - began, 3)

    def test_a_server_that_dribbles_is_given_up_in_time(self) -> None:
        self.script["GET", "manifests/1"] = Reply(body=MANIFEST, pause=0.05)
        began = time.monotonic()
        self.refused(errors.DriverTimeout, "driver_timeout", "within 0.4 s", deadline=0.4)
        self.assertLess(time.monotonic() - began, 3)

    def test_a_connection_that_breaks_may_be_tried_again(self) -> None:
        self.script["GET", "manifests/1"] = Reply(headers={"Content-Length": "9999"}, body=MANIFEST)
        self.refused(errors.DriverUnavailable, "registry_unreachable", "broke.*try again")

    def test_an_image_that_is_not_there_is_named(self) -> None:
        self.script["GET", "manifests/1"] = Reply(404, body=document("MANIFEST_UNKNOWN", "manifest unknown"))
        self.refused(errors.InvalidRequest, "reference_missing", "a/b:1.*MANIFEST_UNKNOWN.*push it first")

    def test_an_image_that_may_not_be_read_is_named_with_who_asked(self) -> None:
        challenge = {"WWW-Authenticate": 'Basic realm="x"'}
        self.script["GET", "manifests/1"] = Reply(401, challenge, document("UNAUTHORIZED"))
        self.refused(errors.InvalidRequest, "reference_denied", "nobody.*give credentials")
        self.refused(
            errors.InvalidRequest, "reference_denied", "UNAUTHORIZED", username="ann", password="wrong"
        )
        self.script["GET", "manifests/1"] = Reply(403, body=document("DENIED", "not yours"))
        self.refused(errors.InvalidRequest, "reference_denied", "DENIED not yours")

    def test_a_registry_that_had_enough_says_when_to_come_back(self) -> None:
        self.script["GET", "manifests/1"] = Reply(429, {"Retry-After": "17"}, document("TOOMANYREQUESTS"))
        self.refused(errors.DriverUnavailable, "registry_rate_limited", "TOOMANYREQUESTS.*in 17 s")
        self.script["GET", "manifests/1"] = Reply(429)
        self.refused(errors.DriverUnavailable, "registry_rate_limited", "later")

    def test_a_registry_in_trouble_may_be_tried_again(self) -> None:
        for status in (500, 502, 503, 504, 408):
            self.script["GET", "manifests/1"] = Reply(status)
            self.refused(errors.DriverUnavailable, "driver_unavailable", str(status))

    def test_a_registry_that_is_of_two_minds_is_asked_again(self) -> None:
        replies = iter([Reply(500), Reply(500)])
        right = Reply(headers={"Content-Type": manifests.OCI_MANIFEST}, body=MANIFEST)
        self.script["GET", "manifests/1"] = lambda seen: next(replies, right)
        self.assertEqual(digest_of(MANIFEST), self.resolve().pin)

    def test_other_answers_are_told_with_their_status(self) -> None:
        self.script["GET", "manifests/1"] = Reply(418, body=document("TEAPOT", "with\ncontrol \x1b[1m"))
        self.refused(errors.DriverError, "driver_error", r"418; TEAPOT with\?control \?\[1m")

    def test_documents_that_are_no_manifests_are_refused(self) -> None:
        kind = {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
        self.script["GET", "manifests/1"] = Reply(headers=kind, body=b'{"schemaVersion": 1}')
        self.refused(errors.InvalidRequest, "reference_unsupported", "v1.prettyjws.*push the image again")
        self.script["GET", "manifests/1"] = Reply(headers={"Content-Type": "text/html"}, body=b"<html>")
        self.refused(errors.DriverError, "driver_error", "cannot be read")

    def test_a_document_without_end_is_not_read_to_its_end(self) -> None:
        self.script["GET", "manifests/1"] = Reply(body=b"[" * (5 * 1024 * 1024))
        self.refused(errors.DriverError, "driver_error", "more than 4194304 bytes")

    def test_a_manifest_of_another_digest_is_refused(self) -> None:
        headers = {"Docker-Content-Digest": digest_of(b"other")}
        self.script["GET", "manifests/1"] = Reply(headers=headers, body=MANIFEST)
        self.refused(errors.PackageCorrupt, "package_corrupt", "digest")
        self.script["GET", f"manifests/{digest_of(MANIFEST)}"] = Reply(body=artifact(b"other"))
        self.assertRaises(errors.PackageCorrupt, self.read)

    def test_bytes_of_another_digest_are_noticed(self) -> None:
        self.script["GET", f"blobs/{digest_of(DATA)}"] = Reply(body=DATA[:-1] + b"!")
        self.assertRaises(errors.PackageCorrupt, self.read)

    def test_indexes_within_each_other_end(self) -> None:
        entry = {
            "mediaType": manifests.OCI_INDEX,
            "size": 1,
            "platform": {"os": "linux", "architecture": "x"},
        }
        body = json.dumps({"mediaType": manifests.OCI_INDEX, "manifests": [{**entry, "digest": "$"}]})
        inner = body.replace("$", "sha256:" + "0" * 64).encode()
        outer = body.replace("$", digest_of(inner)).encode()
        outermost = body.replace("$", digest_of(outer)).encode()
        self.script |= {
            ("GET", "manifests/1"): Reply(body=outermost),
            ("GET", f"manifests/{digest_of(outer)}"): Reply(body=outer),
            ("GET", f"manifests/{digest_of(inner)}"): Reply(body=inner),
        }
        self.image["platform"] = "linux/x"
        self.refused(errors.InvalidRequest, "reference_unsupported", "indexes")

    def test_all_kinds_of_manifests_are_asked_for(self) -> None:
        self.resolve()
        self.assertEqual(set(manifests.ACCEPT.split(", ")), {*manifests.INDEXES, *manifests.MANIFESTS})
        self.assertEqual(manifests.ACCEPT, self.server.seen[0].headers["accept"])


class AllowedTests(Case):
    def make_options(self) -> Mapping[str, Any]:
        return {**super().make_options(), "registries": ["docker.io", "*.example.org"]}

    def test_registries_that_are_not_allowed_are_not_asked(self) -> None:
        self.refused(errors.InvalidRequest, "reference_registry_forbidden", "allowed: docker.io")
        self.assertEqual([], self.server.seen)


class RedirectTests(Case):
    CREDENTIALS: ClassVar[dict[str, str]] = {"username": "ann", "password": "secret"}

    def setUp(self) -> None:
        super().setUp()
        self.elsewhere = self.useFixture(registries.Server(lambda seen: Reply(body=DATA)))

    def wants_basic(self, reply: Reply) -> Callable[[Seen], Reply]:
        challenge = {"WWW-Authenticate": 'Basic realm="x"'}
        return lambda seen: reply if "authorization" in seen.headers else Reply(401, challenge)

    def test_blobs_may_be_elsewhere_and_no_secret_follows_them(self) -> None:
        target = f"{self.elsewhere.url}/bucket/x?signature=abc%2Fdef%3D"
        redirect = Reply(307, {"Location": target})
        self.script["GET", f"blobs/{digest_of(DATA)}"] = self.wants_basic(redirect)
        self.assertEqual(DATA, self.read(**self.CREDENTIALS))
        (seen,) = self.elsewhere.seen
        self.assertEqual(["abc/def="], seen.query["signature"])
        self.assertNotIn("authorization", seen.headers)
        self.assertNotIn("cookie", seen.headers)

    def test_within_the_registry_the_secret_goes_along(self) -> None:
        self.script["GET", "manifests/1"] = self.wants_basic(Reply(302, {"Location": "2"}))
        body = Reply(headers={"Content-Type": manifests.OCI_MANIFEST}, body=MANIFEST)
        self.script["GET", "manifests/2"] = self.wants_basic(body)
        self.assertEqual(digest_of(MANIFEST), self.resolve(**self.CREDENTIALS).pin)

    def test_a_challenge_of_somebody_else_is_not_answered(self) -> None:
        challenge = {"WWW-Authenticate": 'Basic realm="give me your password"'}
        self.elsewhere.answer = lambda seen: Reply(401, challenge)
        self.script["GET", f"blobs/{digest_of(DATA)}"] = Reply(307, {"Location": f"{self.elsewhere.url}/x"})
        self.assertRaises(failures.ReferenceDenied, self.read, **self.CREDENTIALS)
        self.assertEqual(1, len(self.elsewhere.seen))

    def test_redirects_in_a_circle_end(self) -> None:
        self.script["GET", "manifests/1"] = Reply(301, {"Location": "1"})
        self.refused(errors.DriverError, "driver_error", "redirects")
        self.assertLess(len(self.server.seen), 10)

    def test_a_redirect_to_another_kind_of_address_is_refused(self) -> None:
        for target in ("http://registry.example.org/x", "file:///etc/passwd", "ftp://127.0.0.1/x"):
            self.script["GET", "manifests/1"] = Reply(302, {"Location": target})
            self.refused(errors.DriverError, "registry_untrusted", "without TLS.*plain_http")
        self.script["GET", "manifests/1"] = Reply(302, {"Location": "http://[::1"})
        self.refused(errors.DriverError, "driver_error", "no URL")

    def test_cookies_of_one_answer_do_not_come_back(self) -> None:
        right = {"Content-Type": manifests.OCI_MANIFEST, "Set-Cookie": "session=ann; Path=/"}
        self.script["GET", "manifests/1"] = Reply(headers=right, body=MANIFEST)
        self.resolve()
        self.resolve()
        self.assertNotIn("cookie", self.server.seen[-1].headers)


class UploadTests(Case):
    """Uploads to registries that take them elsewhere, or not at all."""

    def make_options(self) -> Mapping[str, Any]:
        super().make_options()
        self.elsewhere = self.useFixture(registries.Server(lambda seen: Reply(201)))
        self.location = f"{self.elsewhere.url}/upload/7?state=a%2Fb%3D"
        self.script["POST", "blobs/uploads/"] = self.begun
        self.script["PUT", f"manifests/package-{DIGEST}"] = Reply(201)
        credentials = {"username": "ann", "password": "secret"}
        return {"repository": f"{self.server.host}/a/b", **credentials}

    def begun(self, seen: Seen) -> Reply:
        if "authorization" not in seen.headers:
            return Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})
        return Reply(202, {"Location": self.location})

    def put(self, deadline: float = 20.0) -> None:
        self.driver.put(DIGEST, len(DATA), io.BytesIO(DATA), deadline=deadline)

    def test_uploads_may_go_elsewhere_and_no_secret_with_them(self) -> None:
        self.put()
        sent = [seen for seen in self.elsewhere.seen if seen.method == "PUT"]
        self.assertIn(DATA, [seen.body for seen in sent])
        for seen in sent:
            self.assertEqual(["a/b="], seen.query["state"])
            self.assertEqual([digest_of(seen.body)], seen.query["digest"])
            self.assertNotIn("authorization", seen.headers)

    def test_a_registry_that_does_not_take_as_much_is_told(self) -> None:
        self.elsewhere.answer = lambda seen: Reply(413)
        raised = self.assertRaises(errors.DriverError, self.put)
        self.assertRegex(raised.message, f"{self.elsewhere.host}.*413.*raise the limit")

    def test_an_upload_that_is_not_answered_is_given_up_in_time(self) -> None:
        def answer(seen: Seen) -> Reply:
            if seen.method == "PUT":
                self.elsewhere.ending.wait(30)
            return Reply(201)

        self.elsewhere.answer = answer
        began = time.monotonic()
        self.assertRaises(errors.DriverTimeout, self.put, deadline=0.5)
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual("DELETE", self.elsewhere.seen[-1].method)

    def test_a_registry_that_does_not_say_where_to_is_told(self) -> None:
        self.script["POST", "blobs/uploads/"] = Reply(202)
        raised = self.assertRaises(errors.DriverError, self.put)
        self.assertIn("does not say where to upload", raised.message)


class TokenTests(Case):
    """The token protocol, with a server that follows a script too."""

    def setUp(self) -> None:
        super().setUp()
        self.lives = iter([300.0] * 100)
        self.tokens = self.useFixture(registries.Server(self.token))
        self.realm = f"{self.tokens.url}/token"
        self.script["GET", "manifests/1"] = self.guarded
        self.valid = True
        self.given = 0

    def token(self, seen: Seen) -> Reply:
        self.given += 1
        body = {"access_token": f"token-{self.given}", "expires_in": next(self.lives)}
        return Reply(body=json.dumps(body).encode())

    def guarded(self, seen: Seen) -> Reply:
        if self.valid and seen.headers.get("authorization") == f"Bearer token-{self.given}":
            return Reply(headers={"Content-Type": manifests.OCI_MANIFEST}, body=MANIFEST)
        challenge = f'Bearer realm="{self.realm}",service="the registry",scope="repository:a/b:pull"'
        return Reply(401, {"WWW-Authenticate": challenge}, document("UNAUTHORIZED"))

    def test_a_token_is_asked_for_once_and_used_while_it_holds(self) -> None:
        for _ in range(3):
            self.resolve(username="ann", password="secret")
        (asked,) = self.tokens.seen
        self.assertEqual({"service": ["the registry"], "scope": ["repository:a/b:pull"]}, asked.query)
        self.assertEqual("Basic YW5uOnNlY3JldA==", asked.headers["authorization"])
        self.assertEqual(4, len(self.server.seen))

    def test_a_token_near_its_end_is_replaced_before_it_is_used(self) -> None:
        self.lives = iter([0.1, 300.0])
        self.resolve()
        time.sleep(0.1)
        self.resolve()
        self.assertEqual(2, self.given)
        authorizations = [seen.headers.get("authorization") for seen in self.server.seen]
        self.assertEqual([None, "Bearer token-1", None, "Bearer token-2"], authorizations)

    def test_a_token_that_is_not_accepted_any_more_is_replaced(self) -> None:
        self.resolve()
        self.given += 1  # as if it had been revoked
        self.resolve()
        self.assertEqual(3, self.given)

    def test_a_new_token_that_is_not_accepted_ends_it(self) -> None:
        self.valid = False
        self.refused(errors.InvalidRequest, "reference_denied", "UNAUTHORIZED")
        self.assertEqual(1, self.given)

    def test_tokens_of_one_user_are_not_anothers(self) -> None:
        self.resolve(username="ann", password="secret")
        self.resolve(username="bob", password="secret")
        self.resolve()
        given = [seen.headers.get("authorization") for seen in self.tokens.seen]
        self.assertEqual(3, len(set(given)))
        self.assertIsNone(given[2])

    def test_an_identity_token_is_exchanged_by_post(self) -> None:
        self.resolve(identitytoken="long lived")
        (asked,) = self.tokens.seen
        self.assertEqual("POST", asked.method)
        self.assertIn(b"grant_type=refresh_token", asked.body)
        self.assertIn(b"refresh_token=long+lived", asked.body)
        self.assertIn(b"scope=repository%3Aa%2Fb%3Apull", asked.body)
        self.assertNotIn("authorization", asked.headers)

    def test_a_registry_token_is_sent_as_it_is(self) -> None:
        self.given = 7
        self.resolve(registrytoken="token-7")
        self.assertEqual([], self.tokens.seen)
        self.refused(errors.InvalidRequest, "reference_denied", "the token given", registrytoken="wrong")
        self.assertEqual([], self.tokens.seen)

    def test_a_token_server_that_refuses_is_named(self) -> None:
        self.tokens.answer = lambda seen: Reply(401, body=document("UNAUTHORIZED", "incorrect password"))
        words = f"token server {self.tokens.host} of {self.server.host}.*'ann'.*incorrect password.*check"
        self.refused(errors.InvalidRequest, "reference_denied", words, username="ann", password="wrong")

    def test_a_token_server_in_trouble_may_be_tried_again(self) -> None:
        self.tokens.answer = lambda seen: Reply(503)
        self.refused(errors.DriverUnavailable, "driver_unavailable", self.tokens.host)
        self.tokens.answer = lambda seen: Reply(429)
        self.refused(errors.DriverUnavailable, "registry_rate_limited", self.tokens.host)

    def test_what_is_no_token_is_not_sent_to_a_registry(self) -> None:
        for token in ("a\r\nX: y", "ä", "a b"):
            self.refused(errors.InvalidRequest, "reference_denied", "characters", registrytoken=token)

    def test_names_that_no_host_has_are_not_looked_up(self) -> None:
        for realm in (f"https://{'a' * 64}.org/token", "https://a..org/token", "https:///token"):
            self.realm = realm
            self.refused(errors.InvalidRequest, "reference_host_unknown", "cannot|can have")

    def test_what_is_no_token_is_not_sent(self) -> None:
        for body in (
            b"",
            b"[]",
            b"{}",
            b'{"token": 7}',
            b'{"token": "a\\r\\nX: y"}',
            b'{"token": "\\u00e4"}',
        ):
            self.tokens.answer = lambda seen, body=body: Reply(body=body)
            self.refused(errors.DriverError, "driver_error", "did not answer with a token")

    def test_a_password_is_not_sent_to_a_token_server_without_tls(self) -> None:
        self.realm = "http://auth.example.org/token"
        self.refused(
            errors.DriverError, "registry_untrusted", "auth.example.org", username="ann", password="secret"
        )


class TlsTests(Case):
    def make_options(self) -> Mapping[str, Any]:
        super().make_options()
        self.certificate = self.useFixture(registries.Certificate())
        tls = {"certificate": str(self.certificate.path), "key": str(self.certificate.key)}
        self.registry = self.useFixture(registries.Registry(http={"tls": tls}))
        return {**self.trusted(), "plain_http": []}

    def trusted(self) -> Mapping[str, Any]:
        return {"ca_file": str(self.certificate.path), "repository": f"{self.registry.host}/a/b"}

    def test_a_registry_with_a_certificate_of_ones_own_keeps_packages(self) -> None:
        self.driver.put(DIGEST, len(DATA), io.BytesIO(DATA), deadline=20)
        self.assertEqual(DATA, self._get(DIGEST))
        self.assertIn("TLS", " ".join(feature.detail for feature in self.driver.features()))

    def test_plain_http_where_tls_is_wanted_says_so(self) -> None:
        self.refused(errors.DriverError, "registry_untrusted", "does not speak TLS.*plain_http")
        self.assertEqual([], self.server.seen)


class UntrustedTests(TlsTests):
    def trusted(self) -> Mapping[str, Any]:
        return {}

    test_a_registry_with_a_certificate_of_ones_own_keeps_packages = None

    def test_a_certificate_that_nobody_vouches_for_is_refused(self) -> None:
        self.moved(self.registry.host)
        self.refused(errors.DriverError, "registry_untrusted", "certificate.*self-signed.*ca_file")


class CheckTests(Case):
    def check(self, **options: Any) -> str:
        """What stands against these options at start."""
        self._values = options
        return self.assertRaises(errors.DriverError, self.make_driver).message

    def test_options_that_cannot_work_are_told_at_start(self) -> None:
        self.assertIn("ca_file /nowhere", self.check(ca_file="/nowhere"))
        self.assertIn("auth_file /nowhere", self.check(auth_file="/nowhere"))
        self.assertIn("linux/amd64", self.check(platform="amd64"))
        self.assertIn("repository", self.check(repository="example.org/UPPER"))

    def test_a_file_without_certificates_is_told_at_start(self) -> None:
        path = self.context.state_dir / "ca.pem"
        path.write_text("no certificate")
        self.assertIn("PEM", self.check(ca_file=str(path)))

    def test_files_of_credentials_that_cannot_be_read_are_told_at_start(self) -> None:
        path = self.context.state_dir / "auth.json"
        for content in ("", "[]", "{"):
            path.write_text(content)
            self.assertIn(str(path), self.check(auth_file=str(path)))

    def test_a_registry_that_does_not_take_uploads_is_told_at_start(self) -> None:
        self.script["POST", "blobs/uploads/"] = Reply(403, body=document("DENIED", "read only"))
        self.assertIn("DENIED read only", self.check(repository=f"{self.server.host}/a/b"))

    def test_an_upload_is_tried_and_given_up_at_start(self) -> None:
        self.script["POST", "blobs/uploads/"] = Reply(202, {"Location": "/v2/a/b/blobs/uploads/7?state=x"})
        self._values = {"repository": f"{self.server.host}/a/b"}
        self.make_driver()
        calls = [(seen.method, seen.path) for seen in self.server.seen]
        self.assertEqual([("POST", "/v2/a/b/blobs/uploads/"), ("DELETE", "/v2/a/b/blobs/uploads/7")], calls)

    def test_a_repository_is_needed_for_packages_alone(self) -> None:
        raised = self.assertRaises(errors.NotSupported, self.driver.exists, DIGEST, deadline=20)
        self.assertIn("repository is not set", raised.message)
        self.assertIn("repository is not set", " ".join(each.detail for each in self.driver.features()))

    def test_a_closed_driver_says_so(self) -> None:
        self.driver.close()
        raised = self.assertRaises(errors.DriverUnavailable, self.resolve)
        self.assertIn("closed", raised.message)


class AuthFileTests(Case):
    """Credentials from a file as Docker keeps it."""

    def make_options(self) -> Mapping[str, Any]:
        super().make_options()
        self.path = self.context.state_dir / "auth.json"
        self.write({})
        challenge = {"WWW-Authenticate": 'Basic realm="x"'}
        right = Reply(headers={"Content-Type": manifests.OCI_MANIFEST}, body=MANIFEST)
        self.script["GET", "manifests/1"] = lambda seen: (
            right if "authorization" in seen.headers else Reply(401, challenge)
        )
        return {"auth_file": str(self.path)}

    def write(self, content: Mapping[str, Any]) -> None:
        self.path.write_text(json.dumps(content))

    def used(self, **credentials: str) -> str:
        """Who the registry was told that we are."""
        self.resolve(**credentials)
        return registries.decoded(self.server.seen[-1].headers["authorization"])

    def test_the_most_particular_entry_counts(self) -> None:
        host = self.server.host
        self.write({"auths": {host: {"auth": "aG9zdDp4"}, f"{host}/a": {"auth": "dGVhbTp4"}}})
        self.assertEqual("team:x", self.used())
        self.write({"auths": {host: {"auth": "aG9zdDp4"}, f"{host}/other": {"auth": "dGVhbTp4"}}})
        self.assertEqual("host:x", self.used())

    def test_entries_may_be_urls_and_may_be_in_clear(self) -> None:
        for key in (f"https://{self.server.host}", f"https://{self.server.host}/v1/"):
            self.write({"auths": {key: {"username": "ann", "password": "pass:word"}}})
            self.assertEqual("ann:pass:word", self.used())

    def test_what_a_caller_gives_counts_before_the_file(self) -> None:
        self.write({"auths": {self.server.host: {"auth": "aG9zdDp4"}}})
        self.assertEqual("ann:secret", self.used(username="ann", password="secret"))

    def test_other_hosts_credentials_are_not_sent(self) -> None:
        self.write({"auths": {"registry.example.org": {"auth": "aG9zdDp4"}, self.server.host: {}}})
        self.assertRaises(failures.ReferenceDenied, self.resolve)

    def test_an_entry_that_is_broken_is_told(self) -> None:
        self.write({"auths": {self.server.host: {"auth": "%%%"}}})
        self.refused(errors.DriverError, "driver_error", "not base64")
        self.write({"auths": []})
        self.assertRaises(failures.ReferenceDenied, self.resolve)
        self.write({"auths": [1]})
        self.refused(errors.DriverError, "driver_error", "auths is not an object")

    def helper(self, script: str) -> None:
        directory = self.context.state_dir / "bin"
        directory.mkdir(exist_ok=True)
        path = directory / "docker-credential-test"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.write({"credHelpers": {self.server.host: "test"}})
        self.useFixture(registries.SearchPath(directory))

    def test_a_credential_helper_is_asked(self) -> None:
        self.helper('read host; echo "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"s\\"}"')
        self.assertEqual(f"{self.server.host}:s", self.used())

    def test_a_helper_that_knows_nothing_leaves_us_anonymous(self) -> None:
        self.helper('echo "credentials not found in native keychain"; exit 1')
        self.refused(errors.InvalidRequest, "reference_denied", "nobody")

    def test_helpers_that_fail_are_told_without_what_they_print(self) -> None:
        self.helper("echo a-secret; exit 3")
        raised = self.assertRaises(errors.DriverError, self.resolve)
        self.assertIn("ended with 3", raised.message)
        self.assertNotIn("a-secret", raised.message)
        self.helper("echo nonsense")
        self.refused(errors.DriverError, "driver_error", "did not print what helpers print")
        self.helper("exec sleep 30")
        self.refused(errors.DriverTimeout, "driver_timeout", "did not answer", deadline=0.3)

    def test_a_helper_that_is_not_there_or_is_no_name_is_told(self) -> None:
        for name, words in (("no-such", "in the PATH"), ("../x", "cannot be a credential helper")):
            self.write({"credsStore": name})
            self.refused(errors.DriverError, "driver_error", words)


class DocumentationTests(testtools.TestCase):
    def test_every_code_is_documented(self) -> None:
        text = (pathlib.Path(__file__).parents[2] / "docs/operator/registry.rst").read_text()
        kinds = [each for each in vars(failures).values() if isinstance(each, type)]
        self.assertEqual([], [each.code for each in kinds if f"``{each.code}``" not in text])
