"""Generates the OpenAPI document of the bridge: `make openapi`.

    v1/*.proto            comments    descriptions
    openai_json.shapes    schemas     one schema for each message, with the ranges of the service
    error table           failures    the responses of each route, by HTTP status
    all of them           document -> restbridge/pages/openapi.json

The document depends only on the repository: a test generates it again and compares. This package
is not part of the distribution, because only the bridge's own file is needed at run time.
"""
