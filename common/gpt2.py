"""
Loads GPT-2's weights and exports ours, through Hugging Face transformers. It is optional (pip install transformers).

    from common.checkpoint import load_model
    from common.gpt2 import save_gpt2
    model, meta, path, settings = load_model('math_mini_14', ['ckpt_best_math.pt'])
    save_gpt2(model, meta, 'math_mini_14_hf')  # AutoTokenizer and GPT2LMHeadModel.from_pretrained load it
"""

import os
from pathlib import Path

import torch

from common.checkpoint import check_vocabulary
from common.dataset import keep_meta, load_meta
from common.errors import UserError, explained, say
from common.tokenizer import vocabulary_files
from model import GPT, GPTConfig

GPT2_MODELS = ('gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl')  # 124M, 350M, 774M, 1558M parameters
# GPT-2's own code multiplies from the other side, so these matrices are stored transposed
CONV1D = ('attn.c_attn.weight', 'attn.c_proj.weight', 'mlp.c_fc.weight', 'mlp.c_proj.weight')


def import_transformers():
    """Hugging Face transformers, without its progress bars and reports."""
    with explained("GPT-2's weights need transformers, which cannot be imported ({}): pip install transformers",
                   ImportError):
        import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def load_gpt2(name_or_path, dropout=0.0, block_size=None):
    """The GPT with the weights of one of GPT2_MODELS, or of a folder; in eval mode, on the CPU.

    block_size: shorten the context to so many positions. The activation is that of its config.json: OpenAI's weights
    were trained with the tanh approximation of GELU, while nanoGPT has the exact one.
    """
    hf_model = load_transformers_gpt2(name_or_path)
    cfg = hf_model.config
    if block_size is not None and block_size > cfg.n_positions:
        raise UserError(f"block_size {block_size} is too large: {name_or_path} has {cfg.n_positions} positions")
    activation = {'gelu_pytorch_tanh': 'gelu_new'}.get(cfg.activation_function, cfg.activation_function)
    hidden = cfg.n_inner or 4 * cfg.n_embd
    usual = dict(layer_norm_epsilon=1e-5, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False,
                 add_cross_attention=False, tie_word_embeddings=True)
    unusual = [key for key, value in usual.items() if getattr(cfg, key) != value]
    if hidden % cfg.n_embd:
        unusual.append('n_inner')
    if activation not in ('gelu', 'gelu_new'):
        unusual.append('activation_function')
    if unusual:
        raise UserError(f"{name_or_path} is a GPT-2 of a kind that cannot be computed here: its config.json has "
                        f"{unusual[0]}={getattr(cfg, unusual[0])!r}")
    model = GPT(GPTConfig(block_size=cfg.n_positions, vocab_size=cfg.vocab_size, n_layer=cfg.n_layer, n_head=cfg.n_head,
                          n_embd=cfg.n_embd, dropout=dropout, mlp_expansion=hidden // cfg.n_embd,
                          activation=activation))
    theirs = hf_model.state_dict()
    model.load_state_dict({key: theirs[key].t() if key.endswith(CONV1D) else theirs[key] for key in model.state_dict()})
    if block_size is not None:
        model.crop_block_size(block_size)
    return model.eval()


def load_transformers_gpt2(name_or_path):
    is_folder = os.path.isdir(name_or_path)
    if not is_folder and name_or_path not in GPT2_MODELS:
        raise UserError(f"{name_or_path} is neither a folder nor one of {', '.join(GPT2_MODELS)}")
    transformers = import_transformers()
    if is_folder and not os.path.exists(os.path.join(name_or_path, 'meta.pkl')) and not vocabulary_files(name_or_path):
        say(f"{name_or_path} has no vocabulary, so OpenAI's is used")
    if not is_folder:
        say(f"loading {name_or_path} through transformers, which downloads it the first time")
    hint = "" if is_folder else ": connect to the network once, or name a folder that holds them"
    # damaged files raise nearly anything
    with explained(f"the weights of {name_or_path} cannot be loaded ({{}}){hint}"):
        config = transformers.AutoConfig.from_pretrained(name_or_path, local_files_only=is_folder)
        if config.model_type != 'gpt2':
            raise UserError(f"{name_or_path} holds no GPT-2, but a model of type {config.model_type!r}")
        model, report = transformers.GPT2LMHeadModel.from_pretrained(
            name_or_path, config=config, local_files_only=is_folder, output_loading_info=True)
    # transformers would draw what is missing at random; its early versions saved causal masks with the weights
    wrong = [key for key in {*report['missing_keys'], *report['unexpected_keys']}
             if not key.endswith(('.attn.bias', '.attn.masked_bias'))]
    if wrong:
        raise UserError(f"the weights of {name_or_path} do not fit its config.json: {min(wrong)} is missing or unknown")
    return model


def load_pretrained(init_from):
    """(model, Meta) of a GPT-2 by its name or folder. Its questions are the paper's, all in the group 'beyond'.

    A folder with a meta.pkl beside the weights has a model of ours, with its own vocabulary and questions.
    """
    model = load_gpt2(init_from)
    meta_path = Path(init_from) / 'meta.pkl'
    meta = load_meta(meta_path, init_from)
    check_vocabulary(model, meta.tokenizer, init_from, meta_path, "put the vocabulary that it was trained with into "
                     "its folder, as meta.pkl or tokenizer.json")
    if meta.tokenizer.bpe:
        meta = meta._replace(questions=[q._replace(group='beyond') for q in meta.questions])
    return model, meta


def save_gpt2(model, meta, folder):
    """Write a GPT to a folder that transformers' GPT2LMHeadModel.from_pretrained loads, with equal logits.

    Biases that the model does not have become zeros. Its vocabulary goes with it, for AutoTokenizer and our scripts.
    """
    transformers = import_transformers()
    cfg = model.config
    hf_model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=cfg.vocab_size, n_positions=cfg.block_size, n_embd=cfg.n_embd, n_layer=cfg.n_layer,
        n_head=cfg.n_head, n_inner=cfg.mlp_expansion * cfg.n_embd, activation_function=cfg.activation,
        resid_pdrop=cfg.dropout, embd_pdrop=cfg.dropout, attn_pdrop=cfg.dropout, bos_token_id=None, eos_token_id=None))
    state = {key: torch.zeros_like(value) for key, value in hf_model.state_dict().items()}
    state |= {key: value.t() if key.endswith(CONV1D) else value for key, value in model.state_dict().items()}
    hf_model.load_state_dict(state)
    with explained(f"cannot write {folder}: {{}}", OSError):
        os.makedirs(folder, exist_ok=True)  # if this fails in transformers, it only logs it
        hf_model.save_pretrained(folder)
        if not meta.tokenizer.bpe:
            character_tokenizer(transformers, meta.tokenizer.characters, cfg.block_size).save_pretrained(folder)
    keep_meta(meta, folder)


def character_tokenizer(transformers, chars, block_size):
    import tokenizers
    stoi = {ch: i for i, ch in enumerate(chars)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(stoi, unk_token=chars[0]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r'[\s\S]'), 'isolated')
    tokenizer.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=block_size,
                                                clean_up_tokenization_spaces=False)
