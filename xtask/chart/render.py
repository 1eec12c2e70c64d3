"""Renders the chart for each case and validates what comes out, strictly. For `cargo xtask manifests`.

Standard input: {"chart": DIR, "schemas": DIR, "versions": [...], "cases": [{"name", "namespace", "values"}, ...]}. Standard output:
{"defaults", "metadata", "lint": [...], "cases": [...]}; a case has `refused`, or `files`, `objects` and `invalid`.
"""

import functools
import json
import pathlib
import sys

import helm_python
import jsonschema
import kubernetes_validate
import yaml

RELEASE = "contrast"
# The validator reads its schemas, of megabytes, for each object anew.
kubernetes_validate.utils.schema_contents = functools.lru_cache(maxsize=None)(kubernetes_validate.utils.schema_contents)


def shown(error):
    place = "/".join(str(step) for step in error.absolute_path)
    return f"/{place}: {error.message}"


class Validator:
    """Says what is wrong with an object; each distinct one is looked at once."""

    def __init__(self, versions, schemas):
        self.versions = versions
        # Kinds that Kubernetes itself does not have.
        self.own = {path.stem: json.loads(path.read_text()) for path in pathlib.Path(schemas).glob("*.json")}
        self.known = {}

    def problems(self, thing):
        key = json.dumps(thing, sort_keys=True)
        if key not in self.known:
            self.known[key] = self.look(thing)
        return self.known[key]

    def look(self, thing):
        kind = thing["kind"]
        if kind in self.own:
            validator = jsonschema.Draft202012Validator(self.own[kind])
            return [{"version": "own schema", "problem": shown(error)} for error in validator.iter_errors(thing)]
        found = []
        for version in self.versions:
            try:
                used = kubernetes_validate.validate(thing, version, strict=True)
                if used != version:
                    found.append({"version": version, "problem": f"there is no schema of this version, only of {used}"})
            except kubernetes_validate.ValidationError as error:
                found.append({"version": version, "problem": shown(error)})
            except kubernetes_validate.SchemaNotFoundError as error:
                found.append({"version": version, "problem": error.message})
        return found


def render(chart, validator, case):
    outcome = {"name": case["name"]}
    if isinstance(case["values"], str):
        case["values"] = yaml.load(case["values"], Loader=yaml.CSafeLoader)
    try:
        files = chart.render(case["values"], name=RELEASE, namespace=case["namespace"])
    except helm_python.HelmError as error:
        return outcome | {"refused": str(error)}
    files = {name: text for name, text in files.items() if text.strip()}
    objects = []
    for name, text in files.items():
        if name.endswith((".yaml", ".yml")):
            objects += [thing for thing in yaml.load_all(text, Loader=yaml.CSafeLoader) if thing is not None]
    invalid = []
    for thing in objects:
        name = f"{thing['kind']} {thing['metadata']['name']}"
        invalid += [{"object": name} | problem for problem in validator.problems(thing)]
    return outcome | {"files": files, "objects": objects, "invalid": invalid}


def main():
    task = json.load(sys.stdin)
    chart = helm_python.Chart.load(task["chart"])
    validator = Validator(task["versions"], task["schemas"])
    cases = [render(chart, validator, case) for case in task["cases"]]
    lint = []
    for case in task["cases"]:
        if case["lint"]:
            report = helm_python.lint(task["chart"], case["values"], strict=True, namespace=case["namespace"])
            # Severity 1 is advice.
            lint += [message["path"] + ": " + message["error"] for message in report["messages"] if message["severity"] > 1]
            lint += report["errors"]
    json.dump({"defaults": chart.values, "metadata": chart.metadata, "lint": lint, "cases": cases}, sys.stdout)


main()
