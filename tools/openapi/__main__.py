"""`python -m tools.openapi`: write the OpenAPI document of the bridge."""

from tools.openapi.document import PLACE, text

if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
