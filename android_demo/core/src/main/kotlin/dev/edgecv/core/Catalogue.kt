package dev.edgecv.core

/** One model file that can be chosen: its network's name and its scheme, as its record has them. */
data class Choice(val source: ModelSource, val name: String, val scheme: String)

/** The models that can be chosen, by network and then by scheme, so that float and int8 can be switched. */
data class Catalogue(val choices: List<Choice>) {
    val names: List<String> get() = choices.map { it.name }.distinct()

    fun schemes(name: String): List<String> = choices.filter { it.name == name }.map { it.scheme }

    /** The model of that name in that scheme, or else in its first. */
    fun find(name: String, scheme: String?): Choice? =
        choices.firstOrNull { it.name == name && it.scheme == scheme } ?: choices.firstOrNull { it.name == name }

    /** With one more model, in the place of one of the same name and scheme. */
    operator fun plus(choice: Choice) =
        Catalogue(choices.filterNot { it.name == choice.name && it.scheme == choice.scheme } + choice)

    companion object {
        /** Of all sources those that say what they are, by name and scheme; a broken one stays by its file's name. */
        fun of(sources: List<ModelSource>): Catalogue = Catalogue(sources.map(::choice).sortedWith(compareBy({ it.name }, { it.scheme })))

        fun choice(source: ModelSource): Choice = try {
            val artifact = Artifact.read(source.file, source.content(), source.sidecar())
            Choice(source, artifact.name, artifact.scheme.ifEmpty { source.file })
        } catch (_: InputError) {
            Choice(source, source.file, source.file)
        }
    }
}
