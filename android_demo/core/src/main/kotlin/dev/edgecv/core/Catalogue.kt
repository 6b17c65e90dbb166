package dev.edgecv.core

import java.nio.ByteBuffer
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale

/** A model file: in the app's assets or added by the user. */
interface ModelSource {
    /** The file name with its extension. */
    val file: String

    /** Whether the user added the file, and may rename and delete it. */
    val added: Boolean get() = false

    /** When the file was last changed, in milliseconds since 1970; 0 if that is unknown. */
    val changedMs: Long get() = 0

    /** The file's bytes in a direct buffer. */
    fun content(): ByteBuffer

    /** The text of the `.json` sidecar; null if there is none. */
    fun sidecar(): String?

    /** The text of a file with one class name a line; null if there is none. */
    fun labels(): String? = null
}

/** A model file with the network's name and the scheme from its record, and its size; 0 if it cannot be read. */
data class ModelVariant(val source: ModelSource, val name: String, val scheme: String, val bytes: Long = 0)

/** The available models by network and scheme, so that the user can switch between float and int8. */
data class Catalogue(val variants: List<ModelVariant>) {
    val names: List<String> get() = variants.map { it.name }.distinct()

    /** The variants of a network. */
    fun of(name: String): List<ModelVariant> = variants.filter { it.name == name }

    /**
     * The scheme of a variant, and what tells it apart from the other variants of its network and scheme: the size, else the
     * date, else the file name.
     */
    fun label(variant: ModelVariant): String {
        val alike = of(variant.name).filter { it.scheme == variant.scheme }
        val details = listOf<(ModelVariant) -> String>(
            { String.format(Locale.ROOT, "%.2f MB", it.bytes / 1e6) },
            { if (it.source.changedMs == 0L) "" else SimpleDateFormat("yyyy-MM-dd HH:mm", Locale.ROOT).format(Date(it.source.changedMs)) },
            { it.source.file },
        )
        fun differs(detail: (ModelVariant) -> String) = alike.map(detail).distinct().size == alike.size
        if (alike.size == 1) return variant.scheme
        return "${variant.scheme} · ${(details.firstOrNull(::differs) ?: details.last())(variant)}"
    }

    /** The variant with that name and scheme, or the first with that name. */
    fun find(name: String, scheme: String?): ModelVariant? = of(name).run { firstOrNull { it.scheme == scheme } ?: firstOrNull() }

    operator fun plus(variant: ModelVariant) = sorted(minus(variant.source).variants + variant)

    /** The catalogue without the variant of this file. */
    operator fun minus(source: ModelSource) = Catalogue(variants.filterNot { it.source.file == source.file && it.source.added == source.added })

    companion object {
        /** The variants of all sources, sorted by name and scheme. A file without a valid record is listed by its file name. */
        fun of(sources: List<ModelSource>): Catalogue = sorted(sources.map(::variant))

        fun variant(source: ModelSource): ModelVariant {
            var bytes = 0L
            return try {
                val content = source.content()
                bytes = content.limit().toLong()
                val record = Record.read(source.file, content, source.sidecar(), source.labels())
                ModelVariant(source, record.name, record.scheme.ifEmpty { source.file }, bytes)
            } catch (_: InputError) {
                ModelVariant(source, source.file, source.file, bytes)
            } catch (_: RuntimeException) { // one broken file must not hide the others
                ModelVariant(source, source.file, source.file, bytes)
            } catch (_: OutOfMemoryError) {
                ModelVariant(source, source.file, source.file, bytes)
            }
        }

        private fun sorted(variants: List<ModelVariant>) = Catalogue(variants.sortedWith(compareBy({ it.name }, { it.scheme }, { it.source.file })))
    }
}
