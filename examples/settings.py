"""The settings of a run, which stay the same when it goes on."""

# What may change then: places of files, and the kind of strategy. The number of
# its replicas is part of the method and may not.
FREE = ("out", "data_dir", "folder", "strategy")


def make_settings(arguments, recipe, more):
    """Dict of what the result of a run depends on, all but `FREE`.

    Args:
        arguments: Namespace, the options of the script.
        recipe: `keras_esam.recipes.Recipe`, with the values that are used.
        more: Dict, what the data is like and the number of replicas.
    """
    values = vars(arguments) | vars(recipe) | recipe.esam | more
    left_out = (*FREE, "name", "esam", "sources")
    return {k: v for k, v in values.items() if k not in left_out}


def check_settings(settings, before, folder):
    """Raises an error unless these are the settings of the run in a folder.

    Args:
        settings: Dict.
        before: Dict, those of the run.
        folder: Path.
    """
    names = dict.fromkeys((*settings, *before))
    names = [name for name in names if settings.get(name) != before.get(name)]
    if names:
        old, new = (
            ", ".join(f"{name}={values.get(name)!r:.60}" for name in names)
            for values in (before, settings)
        )
        raise ValueError(
            "`--out` must be a new folder, or that of a run with the same "
            f"settings, which then goes on: choose another. {folder} was "
            f"trained with {old}. Received: {new}"
        )
