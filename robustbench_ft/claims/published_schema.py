"""The JSON Schema of claims, made from the types that read them."""

from pydantic import TypeAdapter

from robustbench_ft.record.store import Json

from .schema import SCHEMA, Claim

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LEFT_OUT = {"Estimate": ("low", "high")}  # a symmetric interval is stored without its ends


def json_schema() -> Json:
    """The schema of a claim's file. It says what may stand where; `rbft leaderboard verify` says whether it is so."""
    made = TypeAdapter(Claim).json_schema(by_alias=True)
    for name, part in {"Claim": made, **made.get("$defs", {})}.items():
        if "properties" in part:
            part["additionalProperties"] = False
            part.pop("description", None)
            part["required"] = [key for key in part.get("required", ()) if key not in LEFT_OUT.get(name, ())]
    made["properties"]["schema"] = {"const": SCHEMA}
    made["required"] = sorted({*made["required"], "schema"})
    return {"$schema": DIALECT, "title": f"Claim of robustbench_ft, schema {SCHEMA}"} | {
        key: value for key, value in made.items() if key != "title"
    }
