package dev.edgecv.demo

import dev.edgecv.core.Artifact
import dev.edgecv.core.Benchmark
import dev.edgecv.core.BenchmarkRequest
import dev.edgecv.core.Classifier
import dev.edgecv.core.Delegate
import dev.edgecv.core.InputError
import dev.edgecv.core.InputWriter
import dev.edgecv.core.Machine
import dev.edgecv.core.Memory
import dev.edgecv.core.LinuxMachine
import dev.edgecv.core.Session
import dev.edgecv.core.Settings
import dev.edgecv.core.State
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.double
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.EnumSource
import org.junit.jupiter.params.provider.ValueSource
import java.io.File
import java.nio.ByteBuffer
import java.security.MessageDigest
import kotlin.math.abs

/** The app's own classes on the shipped files, by the library of the AAR that goes into the app. */
class TfliteRuntimeTest {
    @ParameterizedTest
    @ValueSource(strings = ["int8", "float32"])
    fun `a photo becomes the input bytes that Python gives the model`(scheme: String) {
        val model = Shipped.model(scheme)
        val artifact = Artifact.read(model, Shipped.content(model), Shipped.sidecar(model))
        TfliteRuntime.open(Shipped.content(model), XNNPACK).use { engine ->
            val writer = InputWriter(engine.input, artifact.preprocessing!!, artifact.pixelOffset)
            val buffer = engine.input.buffer()
            for ((photo, expected) in Shipped.photos.zip(Shipped.answers(model))) {
                writer.write(artifact.preprocessing!!.cropAndResize(photo), buffer)
                buffer.rewind()
                val digest = MessageDigest.getInstance("SHA-256").apply { update(buffer) }.digest()
                assertEquals(expected.getValue("input_sha256").jsonPrimitive.content, digest.joinToString("") { "%02x".format(it) })
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = ["int8", "float32"])
    fun `each photo gets the class that Python gives it, and the five likeliest with their probabilities`(scheme: String) {
        val model = Shipped.model(scheme)
        Classifier.open(model, Shipped.content(model), Shipped.sidecar(model), TfliteRuntime, XNNPACK).use { classifier ->
            for ((n, photo) in Shipped.photos.withIndex()) {
                val expected = Shipped.answers(model)[n]
                val top = expected.getValue("top").jsonArray.map { it.jsonPrimitive.int }
                val probabilities = expected.getValue("probabilities").jsonArray.map { it.jsonPrimitive.double }
                val (answers, _) = classifier.classify { photo }
                assertEquals(top, answers.map { it.index }, "photo $n of $model")
                for ((answer, probability) in answers.zip(probabilities)) assertTrue(abs(answer.probability - probability) < 1e-3)
            }
        }
    }

    companion object {
        val XNNPACK = Settings(threads = 1, delegate = Delegate.XNNPACK)

        @BeforeAll
        @JvmStatic
        fun load() = Shipped.loadDesktopLibrary()
    }
}
