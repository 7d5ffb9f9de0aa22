"""How YAML is read: as text, lists and mappings alone; a module of its own, for yaml is imported where it is needed."""

from __future__ import annotations

from typing import Any

import yaml

from cvjobs.common.progress import tell


class YamlLoader(yaml.BaseLoader):
    """The strictest of the safe loaders, which tells of a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; of a key that is given again the last value counts, which is said on stderr."""
        lines: dict[str, list[int]] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                lines.setdefault(key.value, []).append(key.start_mark.line + 1)
        for name, given in lines.items():
            if len(given) > 1:
                told = f"{self.name} gives {name!r} {len(given)} times: the one in line {given[-1]} counts"
                tell(f"{told}.")
        return super().construct_mapping(node, deep)
