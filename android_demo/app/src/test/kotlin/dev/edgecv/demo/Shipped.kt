package dev.edgecv.demo

import dev.edgecv.core.ModelSource
import dev.edgecv.core.Photo
import dev.edgecv.core.mapped
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import java.io.File
import java.nio.ByteBuffer

/** The model files from build.py, the sample photos, and Python's predictions for them (golden/make_vectors.py). */
object Shipped {
    private val folder = File(System.getProperty("edgecv.vectors"))
    private val vectors = Json.parseToJsonElement(File(folder, "vectors.json").readText()).jsonObject

    /** The app's network, without the small models of the tests. */
    val models: List<String> = vectors.getValue("models").jsonObject.keys.filterNot { it.startsWith("small") }
    val photos: List<Photo> = vectors.getValue("photos").jsonArray.mapIndexed { n, shape ->
        val (width, height) = shape.jsonArray.map { it.jsonPrimitive.int }
        Photo(width, height, File(folder, "$n.rgb").readBytes())
    }

    fun predictions(model: String): List<JsonObject> =
        vectors.getValue("models").jsonObject.getValue(model).jsonArray.map { it.jsonObject }

    fun model(scheme: String) = models.first { it.endsWith("_$scheme.tflite") }

    fun content(model: String): ByteBuffer = mapped(File(folder, model), "the model")

    fun sidecar(model: String): String = File(folder, model.replace(".tflite", ".json")).readText()

    fun file(model: String) = File(folder, model)

    /** A model with its sidecar, as in the app's assets, or without, as when the user opens a file. */
    fun source(model: String, withSidecar: Boolean = true) = object : ModelSource {
        override val file = model

        override fun content() = Shipped.content(model)

        override fun sidecar() = if (withSidecar) Shipped.sidecar(model) else null
    }

    /** Loads the part of Android's C library that TensorFlow Lite needs; see desktop/bionic.c. */
    fun loadDesktopLibrary() {
        val folder = File(System.getProperty("edgecv.desktop"))
        for (name in listOf("libc", "libm", "libdl", "liblog")) System.load(File(folder, "$name.so").absolutePath)
    }
}
