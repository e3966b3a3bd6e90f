"""The function that both peers serve, and what each of them needs to call it."""


def hello(name="World", **context):
    return f"Hello, {name}!"


def main(request):
    """The same for functions-framework, whose functions take a request of Flask."""
    return {"output": hello(**request.get_json())}
