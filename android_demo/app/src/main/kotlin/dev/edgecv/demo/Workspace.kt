package dev.edgecv.demo

import android.content.Context
import android.graphics.Bitmap
import android.net.Uri
import android.os.Handler
import android.os.Looper
import dev.edgecv.core.Accuracy
import dev.edgecv.core.Benchmark
import dev.edgecv.core.BenchmarkRequest
import dev.edgecv.core.Catalogue
import dev.edgecv.core.Delegate
import dev.edgecv.core.InputError
import dev.edgecv.core.ModelSource
import dev.edgecv.core.ModelVariant
import dev.edgecv.core.Photo
import dev.edgecv.core.Session
import dev.edgecv.core.Settings
import dev.edgecv.core.State
import dev.edgecv.core.reason
import java.io.File
import java.util.concurrent.Executors

/** A photo of the user, and as the screen shows it. */
class ChosenPhoto(val photo: Photo, val picture: Bitmap)

/**
 * Everything that the screen shows; each change makes a new value.
 *
 * @property models the open models and their results.
 * @property chosen the model that was chosen last.
 * @property second the model that it is compared with.
 * @property problem with the camera or a chosen file, one sentence.
 * @property settingsOpen whether the sheet with the settings is open.
 */
data class ScreenState(
    val models: State,
    val catalogue: Catalogue = Catalogue(emptyList()),
    val chosen: ModelVariant? = null,
    val second: ModelVariant? = null,
    val photo: ChosenPhoto? = null,
    val thresholdPercent: Int = 0,
    val problem: String? = null,
    val settingsOpen: Boolean = false,
)

/**
 * What survives a rotation: the state of the screen and what changes it. Use it on the main thread.
 *
 * @property shownBy called on the main thread with each new state; null while there is no screen.
 */
class Workspace(private val context: Context) {
    private val main = Handler(Looper.getMainLooper())
    private val files = Executors.newSingleThreadExecutor()!! // reads photos and models off the main thread
    val session = Session(TfliteRuntime, Settings(threads = 1, delegate = Delegate.XNNPACK)) { models ->
        main.post { change { copy(models = models) } }
    }
    var shownBy: ((ScreenState) -> Unit)? = null
    var permissionRequested = false // so that a denied permission is not requested again at each rotation
    var state = ScreenState(session.state)
        private set

    fun change(new: ScreenState.() -> ScreenState) {
        state = state.new()
        shownBy?.invoke(state)
    }

    fun showProblem(text: String?) {
        if (text != state.problem) change { copy(problem = text) }
    }

    /** Reads the models of the app and opens the first one. */
    fun load() = inBackground {
        val catalogue = Catalogue.of(Models.all(context))
        main.post {
            change { copy(catalogue = catalogue) }
            catalogue.variants.firstOrNull()?.let { choose(it) }
        }
    }

    fun choose(variant: ModelVariant) {
        if (variant == state.chosen) return
        change { copy(chosen = variant) }
        session.open(variant.source)
        reclassify()
    }

    /** Compares the chosen model with another one, or, if it is null, with none. */
    fun compareWith(variant: ModelVariant?) {
        if (variant == state.second) return
        change { copy(second = variant) }
        session.compareWith(variant?.source)
        reclassify()
    }

    fun changeSettings(settings: Settings) {
        if (settings == state.models.settings) return
        session.changeSettings(settings)
        reclassify()
    }

    /** Opens a model of the user, with its sidecar and labels; without a model these are for the chosen one. */
    fun openModel(uris: List<Uri>) {
        val before = state.chosen?.source
        inBackground { added(Models.add(context, uris, before)) }
    }

    private fun added(source: ModelSource) {
        val variant = Catalogue.variant(source)
        main.post {
            change { copy(catalogue = catalogue + variant, chosen = null, problem = null) }
            choose(variant)
        }
    }

    fun rename(variant: ModelVariant, name: String) = inBackground {
        val renamed = Catalogue.variant(Models.rename(context, variant.source, name))
        main.post {
            change { copy(catalogue = catalogue - variant.source + renamed) }
            replace(variant, renamed)
        }
    }

    fun delete(variant: ModelVariant) = inBackground {
        Models.delete(context, variant.source)
        main.post {
            change { copy(catalogue = catalogue - variant.source) }
            replace(variant, null)
        }
    }

    /** A file has another name, or is gone. */
    private fun replace(before: ModelVariant, now: ModelVariant?) {
        if (state.second == before) compareWith(now)
        if (state.chosen == before) (now ?: state.catalogue.variants.firstOrNull())?.let { choose(it) }
    }

    fun openPhoto(uri: Uri, onOpened: () -> Unit) = inBackground {
        val photo = Gallery.decode(context, uri)
        val chosen = ChosenPhoto(photo, Gallery.bitmap(photo, SHOWN_PIXELS))
        main.post {
            onOpened()
            change { copy(photo = chosen, problem = null) }
            reclassify()
        }
    }

    /** Classifies the chosen photo again, if there is one; with the camera the next frame follows anyway. */
    private fun reclassify() {
        val photo = state.photo?.photo ?: return
        session.classify { photo }
    }

    /** Measures the accuracy of the open model on a folder of photos, whose subfolders are the classes. */
    fun evaluate(tree: Uri) = inBackground {
        val accuracy = Accuracy(PhotoFolder.photos(context, tree), AndroidMachine(context))
        main.post {
            change { copy(settingsOpen = false, problem = null) }
            session.evaluate(accuracy) { result ->
                Benchmark.write(Benchmarks.folder(context, "accuracy").apply { mkdirs() }, result)
            }
            reclassify()
        }
    }

    fun measure() {
        val settings = state.models.settings
        val request = BenchmarkRequest("app", runs = 50, warmup = 10, threads = listOf(settings.threads), delegate = settings.delegate)
        session.measure(Benchmark(TfliteRuntime, AndroidMachine(context)), request) { result ->
            Benchmark.write(Benchmarks.folder(context, request.folder).apply { mkdirs() }, result)
        }
        reclassify()
    }

    /** Ends all work, without waiting for it. */
    fun close() {
        shownBy = null
        files.shutdown()
        session.close()
    }

    private fun inBackground(work: () -> Unit) = files.execute {
        val reason = try {
            work()
            null
        } catch (error: InputError) {
            error.reason()
        } catch (error: RuntimeException) {
            error.reason()
        } catch (_: OutOfMemoryError) {
            context.getString(R.string.too_large)
        }
        if (reason != null) main.post { showProblem(reason) }
    }

    private companion object {
        const val SHOWN_PIXELS = 1024
    }
}
