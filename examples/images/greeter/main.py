calls = 0


def greet(name="World"):
    global calls  # what is imported stays: calls are counted in each process
    calls += 1
    print("greeting", name)
    return {"greeting": f"Hello, {name}!", "calls": calls}
