package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer

class CatalogueTest {
    private val model = byteArrayOf(12, 0, 0, 0, 84, 70, 76, 51, 4, 0, 4, 0, 4, 0, 0, 0)

    private fun source(
        file: String, scheme: String = "int8", added: Boolean = true, changedMs: Long = 0, bytes: Int = model.size,
        content: () -> ByteBuffer = { ByteBuffer.wrap(model.copyOf(bytes)) },
    ) = object : ModelSource {
        override val file = file
        override val added = added
        override val changedMs = changedMs

        override fun content() = content()

        override fun sidecar() = """{"name": "net", "scheme": "$scheme"}"""
    }

    @Test
    fun `the schemes of one network are its variants`() {
        val float = source("b.tflite", "float32")
        val int8 = source("a.tflite", "int8")
        val catalogue = Catalogue.of(listOf(int8, float))
        assertEquals(listOf("net"), catalogue.names)
        assertEquals(listOf("float32", "int8"), catalogue.of("net").map(catalogue::label))
        assertEquals(int8, catalogue.find("net", "int8")?.source)
        assertEquals(float, catalogue.find("net", "other")?.source)
        assertNull(catalogue.find("nothing", null))
    }

    @Test
    fun `files of one network and scheme are all listed, told apart by what differs`() {
        fun labels(vararg sources: ModelSource) = Catalogue.of(sources.toList()).run { of("net").map(::label) }
        val sizes = labels(source("a.tflite", bytes = 1_500_000), source("b.tflite", bytes = 2_500_000), source("c.tflite", "float32"))
        assertEquals(listOf("float32", "int8 · 1.50 MB", "int8 · 2.50 MB"), sizes)
        val dates = labels(source("a.tflite", added = false), source("b.tflite", changedMs = 86_400_000L * 365))
        assertEquals("int8 · ", dates[0])
        assertTrue(dates[1].startsWith("int8 · 1971-01-01 ") || dates[1].startsWith("int8 · 1970-12-31 "), dates[1])
        assertEquals(listOf("int8 · a.tflite", "int8 · b.tflite"), labels(source("a.tflite"), source("b.tflite")))
    }

    @Test
    fun `a file that is added again replaces itself only, also beside an asset of that name`() {
        val asset = source("a.tflite", added = false)
        val catalogue = Catalogue.of(listOf(asset)) + Catalogue.variant(source("a.tflite")) + Catalogue.variant(source("a.tflite"))
        assertEquals(listOf(false, true), catalogue.variants.map { it.source.added })
        assertEquals(listOf(asset), (catalogue - source("a.tflite")).variants.map { it.source })
    }

    @Test
    fun `a file that fails in any way is listed by its name, beside the others`() {
        val failures = listOf(
            source("one.tflite") { throw InputError("it is gone") },
            source("two.tflite") { throw IllegalStateException("the provider broke") },
            source("three.tflite") { throw OutOfMemoryError() },
            source("four.tflite") { ByteBuffer.wrap(ByteArray(3)) },
        )
        val catalogue = Catalogue.of(failures + source("good.tflite"))
        assertEquals(listOf("four.tflite", "net", "one.tflite", "three.tflite", "two.tflite"), catalogue.names)
    }

    @Test
    fun `a file larger than the memory for buffers is mapped`(@TempDir folder: File) {
        val file = File(folder, "large.tflite")
        RandomAccessFile(file, "rw").use {
            it.write(model)
            it.setLength(1_500_000_000) // pom.xml limits direct memory to 64 MB
        }
        val variant = Catalogue.variant(source("large.tflite") { mapped(file, "the model") })
        assertEquals(listOf("net", 1_500_000_000L), listOf(variant.name, variant.bytes))
    }
}
