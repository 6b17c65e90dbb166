package dev.edgecv.core

/** A model file with the network's name and the scheme from its record. */
data class ModelVariant(val source: ModelSource, val name: String, val scheme: String)

/** The available models by network and scheme, so that the user can switch between float and int8. */
data class Catalogue(val variants: List<ModelVariant>) {
    val names: List<String> get() = variants.map { it.name }.distinct()

    fun schemes(name: String): List<String> = variants.filter { it.name == name }.map { it.scheme }

    /** The variant with that name and scheme, or the first with that name. */
    fun find(name: String, scheme: String?): ModelVariant? =
        variants.firstOrNull { it.name == name && it.scheme == scheme } ?: variants.firstOrNull { it.name == name }

    /** Adds a variant; it replaces one of the same name and scheme. */
    operator fun plus(variant: ModelVariant) =
        Catalogue(variants.filterNot { it.name == variant.name && it.scheme == variant.scheme } + variant)

    companion object {
        /** The variants of all sources, sorted by name and scheme. A file without a valid record is listed by its file name. */
        fun of(sources: List<ModelSource>): Catalogue = Catalogue(sources.map(::variant).sortedWith(compareBy({ it.name }, { it.scheme })))

        fun variant(source: ModelSource): ModelVariant = try {
            val record = Record.read(source.file, source.content(), source.sidecar())
            ModelVariant(source, record.name, record.scheme.ifEmpty { source.file })
        } catch (_: InputError) {
            ModelVariant(source, source.file, source.file)
        }
    }
}
