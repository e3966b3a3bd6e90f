"""The scenarios of the last python-qinlingclient against a server whose functions run in containers."""

from __future__ import annotations

import textwrap

from tests import docker_engine
from tests.integration import docker_server, test_qinlingclient

ONE_SHOT = """
function = qinling.functions.create({"source": "image", "image": WORD}, name="once")
assert (function.runtime_id, function.entry) == (None, None), function
runs = qinling.function_executions
done = runs.create(function_id=function.id, input="1 2.5", sync=True)
assert (done.status, list(json.loads(done.result))) == ("success", ["duration"]), done
assert "the total is 3.5" in runs.get_log(done.id)
assert runs.create(function_id=function.id, input="x", sync=True).status == "failed"
qinling.functions.delete(function.id)
"""


class OnDocker(test_qinlingclient.ClientTest):
    refusal = "no name of an image"

    def make_server(self) -> docker_server.Server:
        self.url = docker_engine.url()
        self.image = docker_engine.python_image(self.url)
        return docker_server.Server(self.url, {}, auth=self.auth)


class PythonTests(OnDocker, test_qinlingclient.PythonTests):
    def test_an_image_that_runs_once(self) -> None:
        image = docker_engine.example_image(self.url, "total", docker_engine.base_image(self.url))
        self.addCleanup(docker_engine.remove_image, self.url, image)
        self.run_python(test_qinlingclient.SESSION_CLIENT, textwrap.dedent(ONE_SHOT), word=image)


class TokenTests(OnDocker, test_qinlingclient.TokenTests):
    pass


class CommandTests(OnDocker, test_qinlingclient.CommandTests):
    pass
