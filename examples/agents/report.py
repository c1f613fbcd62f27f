"""Prints what the program of an agent has in its Pod: the session's configuration, and the host names of its sandboxes."""
import os
import tomllib

with open(os.environ["AIGISE_CONFIG"], "rb") as file:
    config = tomllib.load(file)

model = config["llm"]["model_configs"]["main"]["model_name"]
print(f"{os.environ['AIGISE_AGENT']} of {os.environ['AIGISE_SESSION']}, model {model}")
for sandbox_type in ("gdb_mcp", "main"):
    image = config["sandbox"]["sandboxes"].get(sandbox_type, {}).get("image", config["sandbox"].get("image", "?"))
    print(f"{sandbox_type} is {image} at {os.environ[f'AIGISE_{sandbox_type.upper()}_HOST']}")
